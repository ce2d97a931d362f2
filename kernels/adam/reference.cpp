// Adam (Kingma & Ba 2015, algorithm 1) and AdamW (Loshchilov & Hutter 2019, algorithm 2) by their definition, with the
// maximum of AMSGrad (Reddi et al. 2018), element by element in fp64, each result rounded once: the ground truth.
#include <cmath>
#include <type_traits>

#include "adam/table.hpp"
#include "thread_pool.hpp"

namespace accelops {
namespace {

void round_to(double x, double& out) { out = x; }
template <class T>
void round_to(double x, T& out) {
  from_float(static_cast<float>(x), out);
}

template <class T>
T& at(void* tensor, int64_t i) {
  return static_cast<T*>(tensor)[i];
}

template <class T, class State>
void element(const AdamStep& s, const AdamTensor& t, int64_t i) {
  using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;
  double p = t.master ? to_float(at<Wide>(t.master, i)) : to_float(at<T>(t.param, i));
  double g = s.grad_factor * to_float(static_cast<const T*>(t.grad)[i]);
  if (s.l2 != 0) g += s.l2 * p;
  p *= s.decay;

  // m = beta1 * m + (1 - beta1) * g, as torch writes it: an infinite m becomes NaN.
  const double before = to_float(at<State>(t.exp_avg, i));
  const double m = before + (1 - s.beta1) * (g - before);
  const double v = s.beta2 * to_float(at<State>(t.exp_avg_sq, i)) + (1 - s.beta2) * g * g;
  round_to(m, at<State>(t.exp_avg, i));
  round_to(v, at<State>(t.exp_avg_sq, i));

  double largest = v;
  if (t.max_exp_avg_sq) {
    const double so_far = to_float(at<State>(t.max_exp_avg_sq, i));
    if (so_far > v || std::isnan(so_far)) largest = so_far;
    round_to(largest, at<State>(t.max_exp_avg_sq, i));
  }

  p -= t.step_size * m / (std::sqrt(largest) * t.inv_root_correction2 + s.eps);
  round_to(p, at<T>(t.param, i));
  if (t.master) round_to(p, at<Wide>(t.master, i));
  if (t.ema) {
    Wide& ema = at<Wide>(t.ema, i);
    round_to(s.ema_decay * ema + (1 - s.ema_decay) * p, ema);
  }
}

template <class T, class State>
void step_of(const AdamStep& s, int threads) {
  parallel_for(threads, s.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k)
      for (int64_t i = 0; i < s.tensors[k].numel; ++i) element<T, State>(s, s.tensors[k], i);
  });
}

void step(const AdamStep& s, int threads) {
  const bool wide = s.state_dtype == DType::f32;
  switch (s.dtype) {
    case DType::f32: return step_of<float, float>(s, threads);
    case DType::f64: return step_of<double, double>(s, threads);
    case DType::bf16: return wide ? step_of<bf16, float>(s, threads) : step_of<bf16, bf16>(s, threads);
    case DType::f16: return wide ? step_of<f16, float>(s, threads) : step_of<f16, f16>(s, threads);
  }
}

template <class T>
void square_sums_of(const AdamStep& s, double* sums, int threads) {
  parallel_for(threads, s.numel, kAdamChunk, [&](int64_t begin, int64_t end) {
    double sum = 0;
    adam_parts(s, begin, end, [&](const AdamTensor& t, int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const double g = to_float(static_cast<const T*>(t.grad)[i]);
        sum += g * g;
      }
    });
    sums[begin / kAdamChunk] = sum;
  });
}

void square_sums(const AdamStep& s, double* sums, int threads) {
  switch (s.dtype) {
    case DType::f32: return square_sums_of<float>(s, sums, threads);
    case DType::f64: return square_sums_of<double>(s, sums, threads);
    case DType::bf16: return square_sums_of<bf16>(s, sums, threads);
    case DType::f16: return square_sums_of<f16>(s, sums, threads);
  }
}

}  // namespace

const AdamKernels adam_reference{step, square_sums};

}  // namespace accelops
