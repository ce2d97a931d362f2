// The native convolutions by name: "reference", and the families of the cpu target for this machine's instruction set.
#pragma once

#include "conv/problem.hpp"

namespace accelops {

void conv_reference(const ConvProblem&, const ConvTiles&, const ConvOperands&, int threads);

// The families of kernels/conv/cpu/, one table per instruction set.
struct ConvFamilies {
  ConvKernel depthwise, grouped, pointwise;
};
namespace baseline { extern const ConvFamilies conv_families; }
namespace avx2 { extern const ConvFamilies conv_families; }
namespace avx512 { extern const ConvFamilies conv_families; }

// Null when there is none of that name.
ConvKernel conv_kernel(const char* name);

}  // namespace accelops
