// The native bucket kernels by target: "reference", and "cpu" for this machine's instruction set.
#pragma once

#include "bucket/problem.hpp"

namespace accelops {

struct BucketKernels {
  void (*pack)(const BucketMove&, int threads);
  void (*unpack)(const BucketMove&, int threads);
  void (*reduce)(const BucketReduce&, int threads);
};

extern const BucketKernels bucket_reference;
namespace baseline { extern const BucketKernels bucket_kernels; }
namespace avx2 { extern const BucketKernels bucket_kernels; }
namespace avx512 { extern const BucketKernels bucket_kernels; }

// Null when there is no such target.
const BucketKernels* bucket_kernels_of(const char* target);

}  // namespace accelops
