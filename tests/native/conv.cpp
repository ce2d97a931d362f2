// The convolution families against the reference on the same operands. Allowed: four units in the last place of the
// result's scale, and one rounding (in fp32, the precision of the sums) of the greatest sum of the terms' magnitudes.
#include "conv/problem.hpp"

#include <initializer_list>

#include "array.hpp"
#include "conv/table.hpp"

namespace accelops::self_check {
namespace {

struct Case {
  const char* name;
  const char* family;
  int64_t batch, c, k, groups, in[3], kernel[3], stride[3], padding[3], dilation[3];
  bool transposed = false;
  int64_t output_padding = 0;
};

constexpr Case kCases[] = {
    {"1d 7", "depthwise", 2, 9, 9, 9, {1, 1, 141}, {1, 1, 7}, {1, 1, 1}, {0, 0, 3}, {1, 1, 1}},
    {"1d 31", "depthwise", 1, 33, 33, 33, {1, 1, 70}, {1, 1, 31}, {1, 1, 1}, {0, 0, 15}, {1, 1, 1}},
    {"1d strided dilated", "depthwise", 3, 5, 5, 5, {1, 1, 67}, {1, 1, 5}, {1, 1, 3}, {0, 0, 4}, {1, 1, 2}},
    {"3x3", "depthwise", 2, 35, 35, 35, {1, 12, 13}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
    {"3x3 wide", "depthwise", 1, 3, 3, 3, {1, 17, 61}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
    {"5x5 strided", "depthwise", 1, 16, 16, 16, {1, 15, 14}, {1, 5, 5}, {1, 2, 2}, {0, 2, 2}, {1, 1, 1}},
    {"7x7", "depthwise", 1, 17, 17, 17, {1, 20, 19}, {1, 7, 7}, {1, 1, 1}, {0, 3, 3}, {1, 1, 1}},
    {"dilated", "depthwise", 1, 20, 20, 20, {1, 13, 17}, {1, 3, 2}, {1, 1, 2}, {0, 2, 1}, {1, 2, 3}},
    {"stride beyond the kernel", "depthwise", 1, 4, 4, 4, {1, 11, 13}, {1, 2, 2}, {1, 4, 5}, {0, 0, 0}, {1, 1, 1}},
    {"kernel beyond the input", "depthwise", 2, 6, 6, 6, {1, 2, 3}, {1, 5, 5}, {1, 1, 1}, {0, 2, 3}, {1, 1, 1}},
    {"3x3x3", "depthwise", 1, 10, 10, 10, {5, 7, 6}, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
    {"3d strided", "depthwise", 1, 7, 7, 7, {6, 7, 9}, {2, 3, 3}, {2, 1, 2}, {0, 1, 1}, {1, 1, 1}},
    {"transposed", "depthwise", 2, 18, 18, 18, {1, 6, 7}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}, {1, 1, 1}, true, 1},
    {"one pixel", "depthwise", 2, 5, 5, 5, {1, 1, 1}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
    {"empty batch", "depthwise", 0, 8, 8, 8, {1, 7, 8}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
    {"4 per group", "grouped", 2, 12, 12, 3, {1, 13, 15}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
    {"8 per group", "grouped", 1, 40, 40, 5, {1, 10, 21}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
    {"3 to 5 per group", "grouped", 2, 9, 15, 3, {1, 9, 8}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
    {"strided", "grouped", 2, 8, 12, 4, {1, 21, 19}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}, {1, 1, 1}},
    {"channel multiplier", "grouped", 2, 6, 18, 6, {1, 9, 7}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
    {"1d strided dilated", "grouped", 3, 4, 6, 2, {1, 1, 63}, {1, 1, 5}, {1, 1, 3}, {0, 0, 4}, {1, 1, 2}},
    {"3d strided", "grouped", 2, 6, 4, 2, {7, 5, 6}, {2, 3, 1}, {2, 1, 3}, {1, 0, 0}, {1, 2, 1}},
    {"stem", "grouped", 1, 3, 20, 1, {1, 23, 22}, {1, 7, 7}, {1, 2, 2}, {0, 3, 3}, {1, 1, 1}},
    {"empty batch", "grouped", 0, 8, 12, 4, {1, 7, 8}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
    {"1d", "pointwise", 3, 17, 19, 1, {1, 1, 29}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}},
    {"2d", "pointwise", 2, 35, 50, 1, {1, 13, 15}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}},
    {"2d strided", "pointwise", 2, 8, 5, 1, {1, 9, 7}, {1, 1, 1}, {1, 2, 3}, {0, 0, 0}, {1, 1, 1}},
    {"3d", "pointwise", 1, 9, 11, 1, {3, 4, 5}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}},
    {"one of everything", "pointwise", 1, 1, 1, 1, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}},
    {"empty batch", "pointwise", 0, 4, 6, 1, {1, 7, 8}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}},
};

// Tiles as kernels/conv/cpu/<family>.py documents them: the usual ones, and small ones that cut a small problem too.
std::vector<ConvTiles> tiles_of(const ConvProblem& p, const std::string& family) {
  if (family == "grouped") return {{{96, 8, 16}}, {{1, 4, 32}}};
  if (family == "pointwise") return {{{384}}, {{1}}};
  const bool has_other_lanes = !p.channels_last && p.in[0] * p.in[1] > 1;
  std::vector<ConvTiles> tiles{{{14, 2, 512}}, {{4, 1, 1}}, {{14, 2, 128, 0, 1}}, {{14, 2, 1, 0, 1}}};
  if (has_other_lanes) tiles.push_back({{8, 1, 16, 1}});
  return tiles;
}

ConvProblem problem_of(const Case& c, Direction direction, DType dtype, bool channels_last) {
  ConvProblem p{};
  p.direction = direction, p.dtype = dtype, p.channels_last = channels_last, p.transposed = c.transposed;
  p.batch = c.batch, p.in_channels = c.c, p.out_channels = c.k, p.groups = c.groups;
  for (int d = 0; d < 3; ++d) {
    p.in[d] = c.in[d], p.kernel[d] = c.kernel[d], p.stride[d] = c.stride[d], p.padding[d] = c.padding[d],
    p.dilation[d] = c.dilation[d];
    const int64_t reach = c.dilation[d] * (c.kernel[d] - 1);
    p.out[d] = c.transposed ? (c.in[d] - 1) * c.stride[d] - 2 * c.padding[d] + reach + 1 +
                                  (c.stride[d] > 1 ? c.output_padding : 0)
                            : (c.in[d] + 2 * c.padding[d] - reach - 1) / c.stride[d] + 1;
  }
  return p;
}

// The tensors of a call by the part that they have in it; what a direction does not have is empty.
struct Tensors {
  Array input, weight, bias, output, saved, grad_bias;

  Tensors(const ConvProblem& p, Random& random)
      : input(p.dtype, p.batch * p.in_channels * p.in[0] * p.in[1] * p.in[2]),
        weight(p.dtype, p.in_channels / p.groups * p.out_channels * p.kernel[0] * p.kernel[1] * p.kernel[2]),
        bias(p.dtype, p.out_channels),
        output(p.dtype, p.batch * p.out_channels * p.out[0] * p.out[1] * p.out[2]),
        saved(p.dtype, output.count()),
        grad_bias(p.dtype, p.out_channels) {
    for (Array* a : {&input, &weight, &bias, &output, &saved}) a->fill(random);
  }

  Array& result(Direction d) { return d == Direction::fprop ? output : d == Direction::dgrad ? input : weight; }
  void make_absolute() {
    for (Array* a : {&input, &weight, &bias, &output}) a->map([](double x) { return std::fabs(x); });
  }
};

// Runs `kernel` on the tensors; returns the result and, where the direction has them, `saved` or the bias gradient.
std::vector<Array> run(ConvKernel kernel, const ConvTiles& tiles, const ConvProblem& p, Tensors t, int threads) {
  const bool forward = p.direction == Direction::fprop;
  const bool saves = p.activation == Activation::silu || p.activation == Activation::gelu;
  Array result(p.dtype, t.result(p.direction).count()), output_saved(p.dtype, saves ? result.count() : 0),
      grad_bias(p.dtype, p.out_channels);
  ConvOperands o;
  o.input = t.input.data(), o.weight = t.weight.data(), o.bias = p.bias ? t.bias.data() : nullptr,
  o.grad_output = t.output.data();
  if (forward) o.output = result.data(), o.output_saved = saves ? output_saved.data() : nullptr;
  if (!forward && p.activation != Activation::none) o.saved = t.saved.data();
  if (p.direction == Direction::dgrad) o.grad_input = result.data();
  if (p.direction == Direction::wgrad) o.grad_weight = result.data(), o.grad_bias = p.bias ? grad_bias.data() : nullptr;
  kernel(p, tiles, o, threads);
  std::vector<Array> results;
  results.push_back(std::move(result));
  if (forward && saves) results.push_back(std::move(output_saved));
  if (p.direction == Direction::wgrad && p.bias) results.push_back(std::move(grad_bias));
  return results;
}

std::string describe(const Case& c, const ConvProblem& p, const ConvTiles& tiles) {
  static const char* const directions[] = {"fprop", "dgrad", "wgrad"};
  static const char* const activations[] = {"", " relu", " silu", " gelu"};
  return std::string("conv ") + c.family + " " + c.name + ": " + directions[int(p.direction)] + " " + name(p.dtype) +
         (p.channels_last ? " channels_last" : " contiguous") + (p.bias ? " bias" : "") +
         activations[int(p.activation)] + " tiles " + std::to_string(tiles.value[0]) + "," +
         std::to_string(tiles.value[1]) + (tiles.value[4] ? " direct" : "");
}

void check_problem(const Case& c, const ConvProblem& p, Random& random, Report& report) {
  Tensors tensors(p, random);
  const std::vector<Array> want = run(conv_reference, {}, p, tensors, 1);
  ConvProblem plain = p;
  plain.activation = Activation::none;
  Tensors absolute = tensors;
  absolute.make_absolute();
  const std::vector<Array> sums = run(conv_reference, {}, plain, absolute, 1);
  for (const ConvTiles& tiles : tiles_of(p, c.family)) {
    const std::string what = describe(c, p, tiles);
    std::vector<Array> first;
    for (const int threads : {1, 2, 5}) {
      std::vector<Array> got = run(conv_kernel(c.family), tiles, p, tensors, threads);
      for (size_t i = 0; i < got.size(); ++i) {
        // The value before the activation has the sums of the result.
        const double terms = sums[p.direction == Direction::fprop ? 0 : i].largest();
        const double allowed = 4 * epsilon(p.dtype) * want[i].largest() + epsilon(DType::f32) / 2 * terms;
        report.check_near(got[i], want[i], allowed, what + ", " + std::to_string(threads) + " threads");
        if (threads > 1) report.check(got[i].same_bits(first[i]), what + ": the result depends on the threads");
      }
      if (threads == 1) first = std::move(got);
    }
  }
}

}  // namespace

void check_conv(Random& random, bool thorough, Report& report) {
  for (const Case& c : kCases) {
    const bool only_f32 = std::string(c.family) == "pointwise";
    for (const Direction direction : {Direction::fprop, Direction::dgrad, Direction::wgrad})
      for (const DType dtype : {DType::f32, DType::bf16})
        for (const bool channels_last : {false, true})
          for (int variant = 0; variant < (thorough ? 4 : 1); ++variant) {
            if (only_f32 && dtype != DType::f32) continue;
            ConvProblem p = problem_of(c, direction, dtype, channels_last);
            p.activation = static_cast<Activation>(thorough ? variant : random() % 4);
            p.bias = direction != Direction::dgrad && !(c.transposed && direction == Direction::wgrad) && random() % 2;
            check_problem(c, p, random, report);
          }
  }
}

}  // namespace accelops::self_check
