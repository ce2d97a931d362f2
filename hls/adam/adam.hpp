// The Adam kernel's top function, as the host calls it: hls/adam/kernel.json names its arguments, in this order.
//
// m = m + beta1_rest * (g - m), v = beta2 * v + beta2_rest * g * g, with g = grad_factor * grad + l2 * p and
// p = decay * p - step_size * m / (sqrt(v) * inv_root_correction2 + eps), all in fp32, in this order, unfused.
// The host gives beta1_rest = 1 - beta1, beta2_rest = 1 - beta2, decay = 1 - lr * weight_decay (decoupled; l2 is then 0),
// l2 = weight_decay (coupled; decay is then 1), step_size = lr / (1 - beta1^t), inv_root_correction2 = 1 / sqrt(1 - beta2^t),
// grad_factor = 1, -1 to maximize, or divided by a loss scale. `weight` is the parameter, or its fp32 master.
#pragma once

#include "beat.hpp"

namespace accelops {

// Flags of a call: the maximum of v is kept and used in its place; gradient and `rounded_out` are bf16.
constexpr uint32_t kAmsgrad = 1, kBf16 = 2;

enum AdamStage {
  kLoadGrad,
  kLoadWeight,
  kLoadExpAvg,
  kLoadExpAvgSq,
  kLoadMax,
  kStep,
  kStoreWeight,
  kStoreExpAvg,
  kStoreExpAvgSq,
  kStoreMax,
  kStoreRounded
};

}  // namespace accelops

extern "C" void adam(const accelops::Beat* grad, const accelops::Beat* weight, const accelops::Beat* exp_avg,
                     const accelops::Beat* exp_avg_sq, const accelops::Beat* max_exp_avg_sq, accelops::Beat* weight_out,
                     accelops::Beat* exp_avg_out, accelops::Beat* exp_avg_sq_out, accelops::Beat* max_exp_avg_sq_out,
                     accelops::Beat* rounded_out, uint32_t numel, uint32_t flags, float grad_factor, float l2, float decay,
                     float beta1_rest, float beta2, float beta2_rest, float step_size, float inv_root_correction2, float eps,
                     uint64_t* identity);
