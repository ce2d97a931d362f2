// The activations that the convolutions fuse, and their slopes for the backward, on one Vec.
//
// exp: 2^n e^r with |r| <= ln 2 / 2, the remainder by two-term reduction (Cody & Waite 1980), e^r by a polynomial.
// GELU (exact): z Phi(z). The lower tail of the normal distribution is Phi(-t) = exp(-t^2/2) M(t), t >= 0, where M is
// half the scaled complementary error function; M falls smoothly like 1/t, so a polynomial in 1 / (1 + 0.3 t) holds it
// to 4e-9 (after Shepherd & Laframboise 1981). Unlike 1 + erf it does not cancel for negative z, and the same
// exponential gives the density in the slope. All coefficients are minimax fits. Errors: exp 1 ulp, SiLU 2, GELU 2,
// growing to 11 in its far tail, where rounding t^2 dominates and the value is below 1e-5. exp costs ~20 flops a lane,
// GELU ~45.
#pragma once

#include "conv/problem.hpp"
#include "vec.hpp"

namespace accelops::ACCELOPS_ISA {

template <int degree>
static inline Vec polynomial(const float (&coefficients)[degree + 1], Vec x) {
  Vec sum(coefficients[degree]);
  for (int i = degree - 1; i >= 0; --i) sum = fma(sum, x, Vec(coefficients[i]));
  return sum;
}

// NaN stays NaN; past +-104 the result is infinity or zero.
static inline Vec exp(Vec x) {
  constexpr float kQ[5] = {0.499999995f, 0.166665737f, 0.041666861f, 0.00836374009f,
                           0.001390153f};                       // (e^r - 1 - r) / r^2
  const Vec limit(104.0f), below(-104.0f), round(12582912.0f);  // adding 1.5 * 2^23 rounds to an integer
  x = x.v > limit.v ? limit.v : x.v;
  x = x.v < below.v ? below.v : x.v;
  const Vec n = fma(x, Vec(1.44269504f), round) - round;
  Vec r = fma(n, Vec(-0.693359375f), x);
  r = fma(n, Vec(2.12194440e-4f), r);
  const Vec e = fma(r * r, polynomial<4>(kQ, r), r) + Vec(1.0f);
  // 2^n in two factors, so that a result below the smallest normal number is still right.
  const Vec::Bits whole = __builtin_convertvector(n.v, Vec::Bits), half = whole >> 1;
  return e * Vec::power_of_two(half) * Vec::power_of_two(whole - half);
}

static inline Vec sigmoid(Vec z) {
  return Vec(1.0f) / (Vec(1.0f) + exp(Vec(0.0f) - z));
}

struct Normal {
  Vec cdf, density;
};

static inline Normal normal(Vec z) {
  constexpr float kM[10] = {0.221970613f,    0.164579485f,    0.0865497101f,  0.0277603352f,  0.00181603307f,
                            -0.00242348522f, -5.69703518e-4f, 2.80594925e-4f, 7.67079954e-5f, -4.02928621e-5f};
  const Vec cut(16.0f);  // exp(-128) is zero in fp32
  Vec t = z.v < 0 ? -z.v : z.v;
  t = t.v > cut.v ? cut.v : t.v;
  const Vec w = Vec(1.0f) / fma(t, Vec(0.3f), Vec(1.0f));
  const Vec gauss = exp(Vec(-0.5f) * t * t);
  const Vec tail = gauss * w * polynomial<9>(kM, fma(w, Vec(2.0f), Vec(-1.0f)));
  return {z.v < 0 ? tail.v : (Vec(1.0f) - tail).v, gauss * Vec(0.398942280f)};
}

static inline Vec activate(Activation activation, Vec z) {
  switch (activation) {
    case Activation::relu: return max(z, Vec(0.0f));
    case Activation::silu: return z / (Vec(1.0f) + exp(Vec(0.0f) - z));
    case Activation::gelu: return z * normal(z).cdf;
    default: return z;
  }
}

// The derivative. `saved` is the activation's result for ReLU, its argument for SiLU and GELU.
static inline Vec slope(Activation activation, Vec saved) {
  const Vec one(1.0f), zero(0.0f);
  switch (activation) {
    case Activation::relu: return where_positive(saved, one, zero);
    case Activation::silu: {
      const Vec s = sigmoid(saved);
      return s * fma(saved, one - s, one);
    }
    case Activation::gelu: {
      const Normal at = normal(saved);
      return fma(saved, at.density, at.cdf);
    }
    default: return one;
  }
}

}  // namespace accelops::ACCELOPS_ISA
