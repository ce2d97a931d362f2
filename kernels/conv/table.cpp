#include "conv/table.hpp"

#include <cstring>

#include "isa.hpp"

namespace accelops {

ConvKernel conv_kernel(const char* name) {
#ifdef ACCELOPS_BASELINE_ONLY
  const ConvFamilies& families = baseline::conv_families;
#else
  const ConvFamilies& families = choose(baseline::conv_families, avx2::conv_families, avx512::conv_families);
#endif
  if (std::strcmp(name, "reference") == 0) return conv_reference;
  if (std::strcmp(name, "depthwise") == 0) return families.depthwise;
  if (std::strcmp(name, "grouped") == 0) return families.grouped;
  if (std::strcmp(name, "pointwise") == 0) return families.pointwise;
  return nullptr;
}

}  // namespace accelops
