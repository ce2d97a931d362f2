// The native Adam steps by target: "reference", and "cpu" for this machine's instruction set.
#pragma once

#include "adam/problem.hpp"

namespace accelops {

extern const AdamKernels adam_reference;
namespace baseline { extern const AdamKernels adam; }
namespace avx2 { extern const AdamKernels adam; }
namespace avx512 { extern const AdamKernels adam; }

// Null when there is no such target.
const AdamKernels* adam_kernels(const char* target);

}  // namespace accelops
