#include "adam/table.hpp"

#include <cstring>

#include "isa.hpp"

namespace accelops {

const AdamKernels* adam_kernels(const char* target) {
  if (std::strcmp(target, "reference") == 0) return &adam_reference;
  if (std::strcmp(target, "cpu") != 0) return nullptr;
#ifdef ACCELOPS_BASELINE_ONLY
  return &baseline::adam;
#else
  return &choose(baseline::adam, avx2::adam, avx512::adam);
#endif
}

}  // namespace accelops
