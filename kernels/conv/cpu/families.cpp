// The table of this instruction set's convolution families.
#include "conv/cpu/families.hpp"

#include "conv/table.hpp"

namespace accelops::ACCELOPS_ISA {

extern const ConvFamilies conv_families;
const ConvFamilies conv_families{depthwise, grouped, pointwise};

}  // namespace accelops::ACCELOPS_ISA
