// The Adam step against the reference, on a list whose parameters are cut by chunks, with every flag. Allowed: four
// units in the last place of a state's scale over the list. Operands are as in training: moments of the size of each
// other's root.
#include <initializer_list>

#include "adam/table.hpp"
#include "array.hpp"

namespace accelops::self_check {
namespace {

constexpr int64_t kNumel[] = {21, 1, 0, 2 * kAdamChunk + 4099, 495, 17};

struct Variant {
  DType dtype, state;
  bool amsgrad, master, ema, decoupled;
  double weight_decay;
};

// One parameter, and with flags all that the kernels may write of it.
struct Parameter {
  Array param, grad, exp_avg, exp_avg_sq, largest, master, ema;
  double step;

  Parameter(const Variant& v, int64_t numel, Random& random)
      : param(v.dtype, numel, random() % 4),
        grad(v.dtype, numel, random() % 4),
        exp_avg(v.state, numel, random() % 4),
        exp_avg_sq(v.state, numel),
        largest(v.state, numel),
        master(DType::f32, numel),
        ema(DType::f32, numel),
        step(static_cast<double>(1 + random() % 20)) {
    std::normal_distribution<double> normal;
    for (Array* a : {&master, &grad, &ema, &exp_avg_sq, &largest}) a->fill(random);
    for (Array* a : {&exp_avg_sq, &largest}) a->map([](double x) { return x * x; });
    for (int64_t i = 0; i < numel; ++i)
      param.set(i, master[i]), exp_avg.set(i, std::sqrt(exp_avg_sq[i]) * normal(random));
  }

  AdamTensor view(const Variant& v, int64_t begin, double lr) {
    return {param.data(), grad.data(), exp_avg.data(), exp_avg_sq.data(), v.amsgrad ? largest.data() : nullptr,
            v.master ? master.data() : nullptr, v.ema ? ema.data() : nullptr, begin, param.count(),
            lr / (1 - std::pow(0.9, step)), 1 / std::sqrt(1 - std::pow(0.99, step))};
  }
};

constexpr Array Parameter::* kStates[] = {&Parameter::param,   &Parameter::exp_avg, &Parameter::exp_avg_sq,
                                          &Parameter::largest, &Parameter::master,  &Parameter::ema};
constexpr const char* kNames[] = {"param", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "master", "ema"};

// Steps a copy of the list; gives that, and the sums of the gradients' squares.
std::vector<Parameter> step(const AdamKernels& kernels, const Variant& v, double grad_factor,
                            std::vector<Parameter> list, std::vector<double>& squares, int threads) {
  const double lr = 1e-2;
  std::vector<AdamTensor> tensors;
  int64_t numel = 0;
  for (Parameter& p : list) tensors.push_back(p.view(v, numel, lr)), numel += p.param.count();
  const AdamStep s{tensors.data(), static_cast<int64_t>(tensors.size()), numel, v.dtype, v.state, 0.9, 0.99, 1e-8,
                   grad_factor, v.decoupled ? 0 : v.weight_decay, v.decoupled ? 1 - lr * v.weight_decay : 1, 0.995};
  squares.assign(static_cast<size_t>((numel + kAdamChunk - 1) / kAdamChunk), NAN);
  kernels.square_sums(s, squares.data(), threads);
  kernels.step(s, threads);
  return list;
}

std::string describe(const Variant& v) {
  return std::string("adam ") + name(v.dtype) + " state " + name(v.state) + (v.amsgrad ? " amsgrad" : "") +
         (v.master ? " master" : "") + (v.ema ? " ema" : "") + (v.decoupled ? " decoupled " : " coupled ") +
         std::to_string(v.weight_decay);
}

void check_variant(const Variant& v, Random& random, Report& report) {
  std::vector<Parameter> list;
  for (const int64_t numel : kNumel) list.emplace_back(v, numel, random);
  const double grad_factor = random() % 2 ? 0.25 : -1;  // unscaled or maximized
  std::vector<double> want_squares, squares;
  const std::vector<Parameter> want = step(adam_reference, v, grad_factor, list, want_squares, 1);
  std::vector<Parameter> first;
  for (const int threads : {1, 2, 5}) {
    const std::string what = describe(v) + ", " + std::to_string(threads) + " threads";
    std::vector<Parameter> got = step(*adam_kernels("cpu"), v, grad_factor, list, squares, threads);
    for (size_t state = 0; state < std::size(kStates); ++state) {
      double scale = 0;
      for (const Parameter& p : want) scale = std::fmax(scale, (p.*kStates[state]).largest());
      for (size_t k = 0; k < list.size(); ++k) {
        const Array& mine = got[k].*kStates[state];
        report.check_near(mine, want[k].*kStates[state], 4 * epsilon(mine.type()) * scale, what + ", " + kNames[state]);
        if (threads > 1)
          report.check(mine.same_bits(first[k].*kStates[state]), what + ": the result depends on the threads");
      }
    }
    for (size_t chunk = 0; chunk < squares.size(); ++chunk)
      report.check(std::fabs(squares[chunk] / want_squares[chunk] - 1) <= 4 * epsilon(DType::f32),
                   what + ", square_sums");
    if (threads == 1) first = std::move(got);
  }
}

}  // namespace

void check_adam(Random& random, bool thorough, Report& report) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const DType state : {DType::f32, DType::bf16, DType::f16}) {
      if (state != dtype && state != DType::f32) continue;
      for (int flags = 0; flags < (thorough ? 8 : 1); ++flags) {
        const unsigned chosen = thorough ? static_cast<unsigned>(flags) : static_cast<unsigned>(random() % 8);
        const bool master = (chosen & 2) && dtype != DType::f32;
        check_variant(
            {dtype, state, bool(chosen & 1), master, bool(chosen & 4), random() % 2 == 0, random() % 2 ? 0.1 : 0.0},
            random, report);
      }
    }
}

}  // namespace accelops::self_check
