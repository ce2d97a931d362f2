// The parts of the depthwise family.
#pragma once

#include "conv/problem.hpp"

namespace accelops::ACCELOPS_ISA {

// fprop and dgrad: a tensor gathered from the other.
void depthwise_data(const ConvProblem&, const ConvTiles&, const ConvOperands&, int threads);
// The same, straight from memory, where `depthwise_goes_direct` says so.
bool depthwise_goes_direct(const ConvProblem&);
void depthwise_direct(const ConvProblem&, const ConvTiles&, const ConvOperands&, int threads);
// wgrad, and with it the bias gradient.
void depthwise_weight(const ConvProblem&, const ConvTiles&, const ConvOperands&, int threads);

}  // namespace accelops::ACCELOPS_ISA
