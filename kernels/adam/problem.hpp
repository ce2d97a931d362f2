// One Adam step over a list of parameters as the C++ kernels see it (kernels/adam/spec.py; torch.optim.Adam for the names).
#pragma once

#include <cstdint>

#include "number.hpp"

namespace accelops {

// One parameter. All its tensors hold their elements in the same memory order, without gaps.
struct AdamTensor {
  void* param;
  const void* grad;
  void *exp_avg, *exp_avg_sq;
  void* max_exp_avg_sq;  // null without amsgrad
  void* master;          // copy that is stepped in the parameter's place, or null; float, beside double ones double
  void* ema;             // average of the parameter, or null; the same
  int64_t begin, numel;  // its place in the list, as if all were one vector
  // From its own step count t (which the caller has raised): lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t).
  double step_size, inv_root_correction2;
};

struct AdamStep {
  const AdamTensor* tensors;
  int64_t count, numel;
  DType dtype, state_dtype;  // of param and grad; of the moments
  double beta1, beta2, eps;
  double grad_factor;   // clip coefficient / loss scale, negative to maximize
  double l2;            // weight_decay where it is coupled: added to the gradient
  double decay;         // 1 - lr * weight_decay where it is decoupled, else 1
  double ema_decay;
};

// What a thread takes at a time: 0.9 MB in fp32. Also the reach of one of the norm's partial sums, so that the norm does
// not depend on the number of threads.
constexpr int64_t kAdamChunk = 1 << 15;

struct AdamKernels {
  void (*step)(const AdamStep&, int threads);
  void (*square_sums)(const AdamStep&, double* sums, int threads);  // of the gradients, one sum per chunk
};

// Calls body(tensor, first, last) for each part of a parameter among the list's elements [begin, end).
template <class F>
inline __attribute__((always_inline)) void adam_parts(const AdamStep& s, int64_t begin, int64_t end, const F& body) {
  int64_t k = 0;
  for (int64_t beyond = s.count; beyond - k > 1;) {
    const int64_t middle = k + (beyond - k) / 2;
    (s.tensors[middle].begin <= begin ? k : beyond) = middle;
  }
  for (; begin < end; ++k) {
    const AdamTensor& t = s.tensors[k];
    const int64_t first = begin - t.begin, here = t.numel - first, n = here < end - begin ? here : end - begin;
    if (n > 0) body(t, first, first + n);
    begin += n;
  }
}

}  // namespace accelops
