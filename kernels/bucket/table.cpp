#include "bucket/table.hpp"

#include <cstring>

#include "isa.hpp"

namespace accelops {

const BucketKernels* bucket_kernels_of(const char* target) {
#ifdef ACCELOPS_BASELINE_ONLY
  const BucketKernels& cpu = baseline::bucket_kernels;
#else
  const BucketKernels& cpu = choose(baseline::bucket_kernels, avx2::bucket_kernels, avx512::bucket_kernels);
#endif
  if (std::strcmp(target, "reference") == 0) return &bucket_reference;
  if (std::strcmp(target, "cpu") == 0) return &cpu;
  return nullptr;
}

}  // namespace accelops
