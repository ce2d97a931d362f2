// The Adam step at the speed of memory: one pass over every element of every parameter, read once and written once (28
// bytes and 12 flops in fp32), arithmetic in fp32 registers. The list is cut into equal chunks as if it were one vector, so
// that one huge parameter and two thousand tiny ones keep all threads equally busy; a chunk finds its first parameter by
// bisection. The formulas stand in reference.cpp.
#include "adam/table.hpp"
#include "thread_pool.hpp"
#include "vec.hpp"

namespace accelops::ACCELOPS_ISA {
namespace {

// The numbers of one parameter's step, in registers.
struct Factors {
  Vec grad, l2, decay, beta1_rest, beta2, beta2_rest, step_size, root, eps, ema_rest;
  bool coupled;

  Factors(const AdamStep& s, const AdamTensor& t)
      : grad(float(s.grad_factor)), l2(float(s.l2)), decay(float(s.decay)), beta1_rest(float(1 - s.beta1)), beta2(float(s.beta2)),
        beta2_rest(float(1 - s.beta2)), step_size(float(t.step_size)), root(float(t.inv_root_correction2)), eps(float(s.eps)),
        ema_rest(float(1 - s.ema_decay)), coupled(s.l2 != 0) {}
};

// Elements [i, i + n) of one parameter; `Count` is a whole vector (no argument to load and store) or its first n lanes.
template <class T, class State, bool amsgrad, bool master, bool ema, class... Count>
inline void lanes(const Factors& f, const AdamTensor& t, int64_t i, Count... n) {
  T* const param = static_cast<T*>(t.param) + i;
  State* const exp_avg = static_cast<State*>(t.exp_avg) + i;
  State* const exp_avg_sq = static_cast<State*>(t.exp_avg_sq) + i;

  Vec g = f.grad * Vec::load(static_cast<const T*>(t.grad) + i, n...);
  Vec p;
  if constexpr (master)
    p = Vec::load(static_cast<const float*>(t.master) + i, n...);
  else
    p = Vec::load(param, n...);
  if (f.coupled) g = fma(f.l2, p, g);
  p = p * f.decay;

  Vec m = Vec::load(exp_avg, n...), v = Vec::load(exp_avg_sq, n...);
  m = fma(g - m, f.beta1_rest, m);
  v = fma(f.beta2_rest * g, g, f.beta2 * v);
  m.store(exp_avg, n...);
  v.store(exp_avg_sq, n...);
  if constexpr (amsgrad) {
    State* const largest = static_cast<State*>(t.max_exp_avg_sq) + i;
    v = max(Vec::load(largest, n...), v);
    v.store(largest, n...);
  }

  p = p - f.step_size * m / fma(sqrt(v), f.root, f.eps);
  p.store(param, n...);
  if constexpr (master) p.store(static_cast<float*>(t.master) + i, n...);
  if constexpr (ema) {
    float* const ema_at = static_cast<float*>(t.ema) + i;
    const Vec average = Vec::load(ema_at, n...);
    fma(p - average, f.ema_rest, average).store(ema_at, n...);
  }
}

template <class T, class State, bool amsgrad, bool master, bool ema>
void piece(const AdamStep& s, const AdamTensor& t, int64_t begin, int64_t end) {
  const Factors f(s, t);
  int64_t i = begin;
  for (; i + Vec::lanes <= end; i += Vec::lanes) lanes<T, State, amsgrad, master, ema>(f, t, i);
  if (i < end) lanes<T, State, amsgrad, master, ema>(f, t, i, static_cast<int>(end - i));
}

template <class T, class State, bool... flags>
void step_of(const AdamStep& s, int threads) {
  parallel_for(threads, s.numel, kAdamChunk, [&](int64_t begin, int64_t end) {
    adam_parts(s, begin, end, [&](const AdamTensor& t, int64_t first, int64_t last) { piece<T, State, flags...>(s, t, first, last); });
  });
}

// All parameters of a list have the same extras.
template <class T, class State, bool... flags>
void with_flags(const AdamStep& s, int threads) {
  if constexpr (sizeof...(flags) == 3) {
    step_of<T, State, flags...>(s, threads);
  } else {
    const AdamTensor& t = s.tensors[0];
    const void* const extras[] = {t.max_exp_avg_sq, t.master, t.ema};
    if (extras[sizeof...(flags)])
      with_flags<T, State, flags..., true>(s, threads);
    else
      with_flags<T, State, flags..., false>(s, threads);
  }
}

void step(const AdamStep& s, int threads) {
  if (s.numel == 0) return;
  const bool wide = s.state_dtype == DType::f32;
  switch (s.dtype) {
    case DType::f32: return with_flags<float, float>(s, threads);
    case DType::bf16: return wide ? with_flags<bf16, float>(s, threads) : with_flags<bf16, bf16>(s, threads);
    case DType::f16: return wide ? with_flags<f16, float>(s, threads) : with_flags<f16, f16>(s, threads);
    case DType::f64: return;  // cpu.py refuses it
  }
}

// fp32 over 64 vectors, fp64 beyond: hardly more error than one product has.
template <class T>
double square_sum(const T* grad, int64_t count) {
  double total = 0;
  for (int64_t i = 0; i < count;) {
    Vec sum(0.0f);
    for (int block = 0; block < 64 && i < count; ++block, i += Vec::lanes) {
      const Vec g = i + Vec::lanes <= count ? Vec::load(grad + i) : Vec::load(grad + i, static_cast<int>(count - i));
      sum = fma(g, g, sum);
    }
    for (int lane = 0; lane < Vec::lanes; ++lane) total += sum.v[lane];
  }
  return total;
}

template <class T>
void square_sums_of(const AdamStep& s, double* sums, int threads) {
  parallel_for(threads, s.numel, kAdamChunk, [&](int64_t begin, int64_t end) {
    double sum = 0;
    adam_parts(s, begin, end, [&](const AdamTensor& t, int64_t first, int64_t last) {
      sum += square_sum(static_cast<const T*>(t.grad) + first, last - first);
    });
    sums[begin / kAdamChunk] = sum;
  });
}

void square_sums(const AdamStep& s, double* sums, int threads) {
  switch (s.dtype) {
    case DType::f32: return square_sums_of<float>(s, sums, threads);
    case DType::bf16: return square_sums_of<bf16>(s, sums, threads);
    case DType::f16: return square_sums_of<f16>(s, sums, threads);
    case DType::f64: return;
  }
}

}  // namespace

extern const AdamKernels adam;
const AdamKernels adam{step, square_sums};

}  // namespace accelops::ACCELOPS_ISA
