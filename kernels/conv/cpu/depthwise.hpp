// The two halves of the depthwise family.
#pragma once

#include "conv/problem.hpp"

namespace accelops::ACCELOPS_ISA {

// fprop and dgrad: a tensor gathered from the other.
void depthwise_data(const ConvProblem&, const ConvTiles&, const ConvOperands&, int threads);
// wgrad, and with it the bias gradient.
void depthwise_weight(const ConvProblem&, const ConvTiles&, const ConvOperands&, int threads);

}  // namespace accelops::ACCELOPS_ISA
