// The convolution families of the cpu target; each explains itself at the head of its file.
#pragma once

#include "conv/problem.hpp"

namespace accelops::ACCELOPS_ISA {

void depthwise(const ConvProblem&, const ConvTiles&, const ConvOperands&, int threads);
void grouped(const ConvProblem&, const ConvTiles&, const ConvOperands&, int threads);
void pointwise(const ConvProblem&, const ConvTiles&, const ConvOperands&, int threads);

}  // namespace accelops::ACCELOPS_ISA
