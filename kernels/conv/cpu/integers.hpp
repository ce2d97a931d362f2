// The integer arithmetic of indices, for files compiled per instruction set: std::min and its like could be emitted as one
// symbol that all of them share (isa.hpp).
#pragma once

#include <cstdint>

namespace accelops::ACCELOPS_ISA {

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
// Of any a, and b > 0.
static inline int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
static inline int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

}  // namespace accelops::ACCELOPS_ISA
