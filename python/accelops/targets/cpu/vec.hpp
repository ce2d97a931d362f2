// The one vector type of the CPU kernels: Vec::lanes floats in one register of the instruction set that this file is
// compiled for (16 with AVX-512, 8 with AVX2, 4 with SSE2 and NEON). Arithmetic comes from the compiler's vector
// extension; intrinsics stand only in this file. Types in memory are float, bf16 and f16; arithmetic is always float.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "number.hpp"

namespace accelops::ACCELOPS_ISA {

struct Vec {
#if defined(__AVX512F__)
  static constexpr int lanes = 16;
#elif defined(__AVX2__)
  static constexpr int lanes = 8;
#else
  static constexpr int lanes = 4;
#endif
  typedef float Native __attribute__((vector_size(lanes * 4)));
  typedef int32_t Bits __attribute__((vector_size(lanes * 4)));
  typedef uint16_t Halves __attribute__((vector_size(lanes * 2)));
  Native v;

  Vec() = default;
  Vec(Native native) : v(native) {}
  explicit Vec(float x) : v(x - Native{}) {}  // x - 0 is x, -0 too: a plain broadcast, where x + 0 costs an addition

  static Vec load(const float* p) {
    Vec r;
    std::memcpy(&r.v, p, sizeof r.v);
    return r;
  }
  void store(float* p) const { std::memcpy(p, &v, sizeof v); }

  // Lanes past n are zero, and their memory is not touched. 0 <= n <= lanes.
  static Vec load(const float* p, int n) {
#if defined(__AVX512F__)
    return Vec(Native(_mm512_maskz_loadu_ps(mask(n), p)));
#elif defined(__AVX2__)
    return Vec(Native(_mm256_maskload_ps(p, mask(n))));
#else
    float whole[lanes] = {};
    std::memcpy(whole, p, n * sizeof(float));
    return load(whole);
#endif
  }
  void store(float* p, int n) const {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, mask(n), __m512(v));
#elif defined(__AVX2__)
    _mm256_maskstore_ps(p, mask(n), __m256(v));
#else
    std::memcpy(p, &v, n * sizeof(float));
#endif
  }

  static Vec load(const bf16* p) {
    Halves h;
    std::memcpy(&h, p, sizeof h);
    return widen(h);
  }
  static Vec load(const bf16* p, int n) {
    Halves h = {};
#if defined(__AVX512F__)  // memcpy of a variable size is a call
    const __m256i some = _mm256_maskz_loadu_epi16(mask(n), p);
    std::memcpy(&h, &some, sizeof h);
#else
    std::memcpy(&h, p, n * sizeof(bf16));
#endif
    return widen(h);
  }
  void store(bf16* p) const {
    const Halves h = narrow();
    std::memcpy(p, &h, sizeof h);
  }
  void store(bf16* p, int n) const {
    const Halves h = narrow();
#if defined(__AVX512F__)
    __m256i some;
    std::memcpy(&some, &h, sizeof h);
    _mm256_mask_storeu_epi16(p, mask(n), some);
#else
    std::memcpy(p, &h, n * sizeof(bf16));
#endif
  }

  static Vec load(const f16* p) {
#if defined(__AVX512F__)
    return Vec(Native(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))));
#elif defined(__AVX2__)
    return Vec(Native(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))));
#else
    return load(p, lanes);
#endif
  }
  static Vec load(const f16* p, int n) {
    float whole[lanes] = {};
    for (int i = 0; i < n; ++i) whole[i] = to_float(p[i]);
    return load(whole);
  }
  void store(f16* p) const {
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(__m512(v), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(__m256(v), _MM_FROUND_TO_NEAREST_INT));
#else
    store(p, lanes);
#endif
  }
  void store(f16* p, int n) const {
    for (int i = 0; i < n; ++i) p[i] = to_f16(v[i]);
  }

  // Stores past the caches, without first reading the line that is written. p is aligned to the bytes written; fence()
  // comes before another thread may read them. A plain store where the instruction set has none.
#if defined(__x86_64__)
  void stream(float* p) const { stream_bytes(p, v); }
  void stream(bf16* p) const { stream_bytes(p, narrow()); }
  void stream(f16* p) const {
    Halves h;
    store(reinterpret_cast<f16*>(&h));
    stream_bytes(p, h);
  }
  static void fence() { _mm_sfence(); }
#else
  template <class T>
  void stream(T* p) const {
    store(p);
  }
  static void fence() {}
#endif

  friend Vec operator+(Vec a, Vec b) { return a.v + b.v; }
  friend Vec operator-(Vec a, Vec b) { return a.v - b.v; }
  friend Vec operator*(Vec a, Vec b) { return a.v * b.v; }
  friend Vec operator/(Vec a, Vec b) { return a.v / b.v; }
  Vec& operator+=(Vec b) { return v += b.v, *this; }

  // NaN in either operand gives NaN, as torch.maximum does.
  friend Vec max(Vec a, Vec b) { return (a.v >= b.v) | (a.v != a.v) ? a.v : b.v; }
  // Where condition > 0 (false for NaN) yes, else no.
  friend Vec where_positive(Vec condition, Vec yes, Vec no) { return condition.v > 0 ? yes.v : no.v; }

  friend Vec sqrt(Vec a) {
#if defined(__AVX512F__)
    return Vec(Native(_mm512_sqrt_ps(__m512(a.v))));
#elif defined(__AVX2__)
    return Vec(Native(_mm256_sqrt_ps(__m256(a.v))));
#else
    for (int i = 0; i < lanes; ++i) a.v[i] = __builtin_sqrtf(a.v[i]);
    return a;
#endif
  }

  // a, and zero in place of infinities and NaN.
  friend Vec finite_or_zero(Vec a) { return a.v - a.v == 0 ? a.v : Native{}; }

  // a * b + c, rounded once where the instruction set has it.
  friend Vec fma(Vec a, Vec b, Vec c) { return a.v * b.v + c.v; }

  // 2^n, for -126 <= n <= 127.
  static Vec power_of_two(Bits n) {
    const Bits bits = (n + 127) << 23;
    Vec r;
    std::memcpy(&r.v, &bits, sizeof bits);
    return r;
  }

  float sum() const {
    float s = 0;
    for (int i = 0; i < lanes; ++i) s += v[i];
    return s;
  }

  // The even lanes of a and b joined.
  friend Vec even(Vec a, Vec b) {
#if defined(__AVX512F__)
    Bits index;
    for (int i = 0; i < lanes; ++i) index[i] = 2 * i;
    return Vec(Native(_mm512_permutex2var_ps(__m512(a.v), __m512i(index), __m512(b.v))));
#else
    Vec r;
    for (int i = 0; i < lanes; ++i) r.v[i] = 2 * i < lanes ? a.v[2 * i] : b.v[2 * i - lanes];
    return r;
#endif
  }

  // Row i becomes column i. A butterfly: step s exchanges blocks of s x s, log2(lanes) * lanes shuffles in all.
  friend void transpose(Vec (&rows)[lanes]) {
#if defined(__AVX512F__)
    transpose_step<1>(rows);
    transpose_step<2>(rows);
    transpose_step<4>(rows);
    transpose_step<8>(rows);
#elif defined(__AVX2__)
    for (int i = 0; i < lanes; i += 2) {
      const __m256 a = __m256(rows[i].v), b = __m256(rows[i + 1].v);
      rows[i] = Vec(Native(_mm256_blend_ps(a, _mm256_moveldup_ps(b), 0xaa)));
      rows[i + 1] = Vec(Native(_mm256_blend_ps(_mm256_movehdup_ps(a), b, 0xaa)));
    }
    for (int i = 0; i < lanes; i += i % 2 ? 3 : 1) {
      const __m256 a = __m256(rows[i].v), b = __m256(rows[i + 2].v);
      rows[i] = Vec(Native(_mm256_shuffle_ps(a, b, 0x44)));
      rows[i + 2] = Vec(Native(_mm256_shuffle_ps(a, b, 0xee)));
    }
    for (int i = 0; i < 4; ++i) {
      const __m256 a = __m256(rows[i].v), b = __m256(rows[i + 4].v);
      rows[i] = Vec(Native(_mm256_permute2f128_ps(a, b, 0x20)));
      rows[i + 4] = Vec(Native(_mm256_permute2f128_ps(a, b, 0x31)));
    }
#else
    for (int i = 0; i < lanes; ++i) {
      for (int j = 0; j < i; ++j) {
        const float x = rows[i].v[j];
        rows[i].v[j] = rows[j].v[i];
        rows[j].v[i] = x;
      }
    }
#endif
  }

 private:
#if defined(__AVX512F__)
  static __mmask16 mask(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
  template <int s>
  static void transpose_step(Vec (&rows)[lanes]) {
    Bits low, high;  // lane numbers: 0-15 of the first row, 16-31 of the second
    for (int l = 0; l < lanes; ++l) {
      low[l] = l & s ? 16 + l - s : l;
      high[l] = l & s ? 16 + l : l + s;
    }
    for (int i = 0; i < lanes; ++i) {
      if (i & s) continue;
      const __m512 a = __m512(rows[i].v), b = __m512(rows[i + s].v);
      rows[i] = Vec(Native(_mm512_permutex2var_ps(a, __m512i(low), b)));
      rows[i + s] = Vec(Native(_mm512_permutex2var_ps(a, __m512i(high), b)));
    }
  }
#elif defined(__AVX2__)
  static __m256i mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
#endif
#if defined(__x86_64__)
  template <class Register>
  static void stream_bytes(void* p, Register r) {
#if defined(__AVX512F__)
    if constexpr (sizeof r == 64) return _mm512_stream_si512(static_cast<__m512i*>(p), (__m512i)r);
#endif
#if defined(__AVX2__)
    if constexpr (sizeof r == 32) return _mm256_stream_si256(static_cast<__m256i*>(p), (__m256i)r);
#endif
    if constexpr (sizeof r == 16) return _mm_stream_si128(static_cast<__m128i*>(p), (__m128i)r);
    if constexpr (sizeof r == 8) return _mm_stream_si64(static_cast<long long*>(p), (long long)r);
  }
#endif
  static Vec widen(Halves h) {
    const Bits wide = __builtin_convertvector(h, Bits) << 16;
    Vec r;
    std::memcpy(&r.v, &wide, sizeof wide);
    return r;
  }
  // Round to nearest even; NaN stays NaN.
  Halves narrow() const {
    typedef uint32_t Unsigned __attribute__((vector_size(lanes * 4)));
    Unsigned u;
    std::memcpy(&u, &v, sizeof u);
    const Unsigned rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const Unsigned quiet = (u >> 16) | 0x40u;
    return __builtin_convertvector(v == v ? rounded : quiet, Halves);
  }
};

}  // namespace accelops::ACCELOPS_ISA
