// The element types of tensors as the kernels see them: float, double, bf16 and f16, and their exact conversions.
#pragma once

#include <cstdint>
#include <cstring>

namespace accelops {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

enum class DType { f32, f64, bf16, f16 };

constexpr int64_t size_of(DType t) { return t == DType::f64 ? 8 : t == DType::f32 ? 4 : 2; }

static inline float from_bits(uint32_t u) {
  float f;
  std::memcpy(&f, &u, sizeof f);
  return f;
}
static inline uint32_t to_bits(float f) {
  uint32_t u;
  std::memcpy(&u, &f, sizeof u);
  return u;
}

static inline float to_float(float x) { return x; }
static inline double to_float(double x) { return x; }
static inline float to_float(bf16 x) { return from_bits(uint32_t(x.bits) << 16); }
static inline float to_float(f16 x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16, exponent = (x.bits >> 10) & 31u, mantissa = x.bits & 0x3ffu;
  if (exponent == 31) return from_bits(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return from_bits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  const float subnormal = float(mantissa) * 5.9604644775390625e-8f;  // 2^-24
  return sign ? -subnormal : subnormal;
}

// Round to nearest even; overflow gives infinity, NaN stays NaN.
static inline bf16 to_bf16(float x) {
  const uint32_t u = to_bits(x);
  if (x != x) return {uint16_t((u >> 16) | 0x40u)};
  return {uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}
static inline f16 to_f16(float x) {
  const uint32_t u = to_bits(x), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {uint16_t(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {uint16_t(sign | 0x7c00u)};  // 65520 and up round to infinity
  if (magnitude < 0x38800000u)                                      // below 2^-14: adding 0.5 lets the FPU round at 2^-24
    return {uint16_t(sign | (to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000u))};
  return {uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13))};
}

// Overloads rather than specialised templates: those would be one weak symbol, shared by all instruction sets.
static inline void from_float(float x, float& out) { out = x; }
static inline void from_float(float x, bf16& out) { out = to_bf16(x); }
static inline void from_float(float x, f16& out) { out = to_f16(x); }

}  // namespace accelops
