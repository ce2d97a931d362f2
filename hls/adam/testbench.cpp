// The Adam kernel against the formulas of adam.hpp, element by element in fp32: equal to the bit, for sizes that are zero,
// odd, and whole beats, with each flag, stepped in place and not; and nothing written beyond an array's last beat.
#include "testbench.hpp"

#include <cmath>
#include <limits>

#include "adam.hpp"

namespace accelops {
namespace {

struct Hyper {
  float grad_factor, l2, decay, beta1_rest, beta2, beta2_rest, step_size, inv_root_correction2, eps;
};

Hyper random_hyper(Testbench& bench) {
  const bool coupled = bench.below(2), maximize = bench.below(2);
  const double lr = 1e-3, weight_decay = 0.1, beta1 = 0.9, beta2 = 0.999, t = 1 + bench.below(1000);
  return {maximize ? -0.5f : 0.5f,
          coupled ? float(weight_decay) : 0.0f,
          coupled ? 1.0f : float(1 - lr * weight_decay),
          float(1 - beta1),
          float(beta2),
          float(1 - beta2),
          float(lr / (1 - std::pow(beta1, t))),
          float(1 / std::sqrt(1 - std::pow(beta2, t))),
          1e-8f};
}

struct Arrays {
  Array grad, weight, exp_avg, exp_avg_sq, max, rounded;
  Arrays(uint32_t numel, bool bf16)
      : grad(numel, bf16 ? 16 : 32), weight(numel, 32), exp_avg(numel, 32), exp_avg_sq(numel, 32), max(numel, 32),
        rounded(numel, 16) {}
};

void fill(Testbench& bench, Arrays& x) {
  const float infinity = std::numeric_limits<float>::infinity(), strange[] = {0.0f, -0.0f, infinity, 1e30f, NAN};
  for (uint32_t i = 0; i < x.grad.numel(); ++i) {
    x.grad.set_value(i, bench.below(50) ? bench.normal() : strange[bench.below(5)]);
    x.weight.set_value(i, bench.normal());
    x.exp_avg.set_value(i, bench.normal());
    x.exp_avg_sq.set_value(i, std::fabs(bench.normal()));
    x.max.set_value(i, bench.below(50) ? std::fabs(bench.normal()) : NAN);
  }
}

void expect(Testbench& bench, const Arrays& before, const Arrays& after, const Hyper& h, bool amsgrad, bool bf16) {
  for (uint32_t i = 0; i < before.grad.numel(); ++i) {
    const float p = before.weight.value(i), m = before.exp_avg.value(i), v = before.exp_avg_sq.value(i);
    float g = h.grad_factor * before.grad.value(i);
    if (h.l2 != 0) g = g + h.l2 * p;
    const float m2 = m + h.beta1_rest * (g - m), v2 = h.beta2 * v + h.beta2_rest * g * g;
    const float max = before.max.value(i), largest = amsgrad && !(max <= v2) && !std::isnan(v2) ? max : v2;
    const float largest2 = amsgrad && std::isnan(max) ? max : largest;
    const float p2 = h.decay * p - h.step_size * m2 / (std::sqrt(largest2) * h.inv_root_correction2 + h.eps);
    bench.same("weight", i, after.weight.get(i), bits_of(p2));
    bench.same("exp_avg", i, after.exp_avg.get(i), bits_of(m2));
    bench.same("exp_avg_sq", i, after.exp_avg_sq.get(i), bits_of(v2));
    if (amsgrad) bench.same("max_exp_avg_sq", i, after.max.get(i), bits_of(largest2));
    if (bf16) bench.same("rounded", i, after.rounded.get(i), nearest_bf16(p2), 0x7f80u);
  }
  after.weight.check_end(bench, "weight");
  after.exp_avg.check_end(bench, "exp_avg");
  after.exp_avg_sq.check_end(bench, "exp_avg_sq");
  if (amsgrad) after.max.check_end(bench, "max_exp_avg_sq");
  if (bf16) after.rounded.check_end(bench, "rounded");
}

void run(Testbench& bench, uint32_t numel, bool amsgrad, bool bf16, bool in_place) {
  Arrays before(numel, bf16);
  fill(bench, before);
  Arrays in = before, fresh(numel, bf16);
  Arrays& out = in_place ? in : fresh;
  const Hyper h = random_hyper(bench);
  uint64_t identity = 0;
  adam(in.grad.data(), in.weight.data(), in.exp_avg.data(), in.exp_avg_sq.data(), in.max.data(), out.weight.data(),
       out.exp_avg.data(), out.exp_avg_sq.data(), out.max.data(), out.rounded.data(), numel,
       (amsgrad ? kAmsgrad : 0) | (bf16 ? kBf16 : 0), h.grad_factor, h.l2, h.decay, h.beta1_rest, h.beta2, h.beta2_rest,
       h.step_size, h.inv_root_correction2, h.eps, &identity);
  expect(bench, before, out, h, amsgrad, bf16);
  bench.same("VERSION", 0, uint32_t(identity), uint32_t(kAdamIdentity));
  bench.same("CONFIG_HASH", 0, uint32_t(identity >> 32), uint32_t(kAdamIdentity >> 32));
}

}  // namespace
}  // namespace accelops

int main(int argc, char** argv) {
  accelops::Testbench bench("adam", argc, argv);
  for (uint32_t numel : {0u, 1u, 2u, 3u, 31u, 32u, 33u, 1000u + bench.below(1000)})
    for (int flags = 0; flags < 8; ++flags) accelops::run(bench, numel, flags & 1, flags & 2, flags & 4);
  return bench.status();
}
