// (being written)
#include "conv/cpu/families.hpp"

namespace accelops::ACCELOPS_ISA {

void grouped(const ConvProblem&, const ConvTiles&, const ConvOperands&, int) {}

}  // namespace accelops::ACCELOPS_ISA
