// A beat, what one AXI port moves in a cycle, and its lanes: floats, or twice as many bf16.
#pragma once

#include <ap_int.h>

#include <cstdint>

#include "board.hpp"

namespace accelops {

typedef ap_uint<kPortBits> Beat;
constexpr int kFloats = kPortBits / 32;
constexpr int kHalves = kPortBits / 16;

// Through a union, which synthesis reads as wires.
inline float float_of(uint32_t bits) {
  union {
    uint32_t bits;
    float value;
  } both;
  both.bits = bits;
  return both.value;
}

inline uint32_t bits_of(float value) {
  union {
    uint32_t bits;
    float value;
  } both;
  both.value = value;
  return both.bits;
}

// The nearest bf16, ties to even; a NaN stays one (quiet).
inline uint16_t to_bf16(float value) {
  const uint32_t bits = bits_of(value);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return nan ? uint16_t(bits >> 16 | 0x40u) : uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline float float_lane(const Beat& beat, int lane) {
  const uint32_t bits = beat.range(32 * lane + 31, 32 * lane);
  return float_of(bits);
}

inline float bf16_lane(const Beat& beat, int lane) {
  const uint32_t bits = beat.range(16 * lane + 15, 16 * lane);
  return float_of(bits << 16);
}

inline void put_float(Beat& beat, int lane, float value) { beat.range(32 * lane + 31, 32 * lane) = bits_of(value); }

inline void put_bf16(Beat& beat, int lane, float value) { beat.range(16 * lane + 15, 16 * lane) = to_bf16(value); }

inline uint32_t beats_of(uint32_t numel, uint32_t lanes) { return numel / lanes + (numel % lanes != 0); }

}  // namespace accelops
