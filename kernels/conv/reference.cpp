// Convolution by its definition: the ground truth that every other implementation is tested against.
//
// A forward convolution connects an input pixel i and an output pixel o through tap r of the kernel wherever
//     i = o * stride - padding + r * dilation            (per spatial dimension; a transposed one swaps i and o).
// fprop gathers over all (channel, tap) that reach an output; dgrad over all that reach an input; wgrad over all pixel
// pairs that a tap connects. Each result is summed in fp64 (long double for fp64 operands, so that it is a truth for fp64 too)
// and rounded once. 2 N K O P Q (C/groups) T R S flops.
#include <cmath>
#include <type_traits>

#include "conv/table.hpp"
#include "thread_pool.hpp"

namespace accelops {
namespace {

struct Pixel {
  int64_t at[3];
};

// A (batch, channel, D, H, W) tensor in either memory format.
struct View {
  int64_t channels, size[3];
  bool channels_last;

  int64_t pixels() const { return size[0] * size[1] * size[2]; }
  int64_t offset(int64_t n, int64_t c, const Pixel& p) const {
    const int64_t pixel = (p.at[0] * size[1] + p.at[1]) * size[2] + p.at[2];
    return channels_last ? (n * pixels() + pixel) * channels + c : (n * channels + c) * pixels() + pixel;
  }
  bool contains(const Pixel& p) const {
    for (int d = 0; d < 3; ++d)
      if (p.at[d] < 0 || p.at[d] >= size[d]) return false;
    return true;
  }
  Pixel pixel(int64_t index) const {
    return {{index / (size[1] * size[2]), index / size[2] % size[1], index % size[2]}};
  }
};

// x' = activation(x) as torch computes it, and its derivative; GELU is the exact one.
double activate(Activation a, double z) {
  switch (a) {
    case Activation::relu: return z < 0 ? 0 : z;
    case Activation::silu: return z / (1 + std::exp(-z));
    case Activation::gelu: return 0.5 * z * (1 + std::erf(z * M_SQRT1_2));
    default: return z;
  }
}
double slope(Activation a, double saved) {
  switch (a) {
    case Activation::relu: return saved > 0 ? 1 : 0;
    case Activation::silu: {
      const double s = 1 / (1 + std::exp(-saved));
      return s * (1 + saved * (1 - s));
    }
    case Activation::gelu:
      return 0.5 * (1 + std::erf(saved * M_SQRT1_2)) + saved * std::exp(-0.5 * saved * saved) * (M_2_SQRTPI * M_SQRT1_2 * 0.5);
    default: return 1;
  }
}

// The convolution as a relation between "small" and "large" pixels: large = small * stride - padding + tap * dilation.
// In a plain convolution the output is the small side, in a transposed one the input is.
struct Relation {
  const ConvProblem& p;

  bool large_of(const Pixel& small, const Pixel& tap, const View& large, Pixel& out) const {
    for (int d = 0; d < 3; ++d) out.at[d] = small.at[d] * p.stride[d] - p.padding[d] + tap.at[d] * p.dilation[d];
    return large.contains(out);
  }
  bool small_of(const Pixel& large, const Pixel& tap, const View& small, Pixel& out) const {
    for (int d = 0; d < 3; ++d) {
      const int64_t scaled = large.at[d] + p.padding[d] - tap.at[d] * p.dilation[d];
      if (scaled % p.stride[d] != 0) return false;
      out.at[d] = scaled / p.stride[d];
    }
    return small.contains(out);
  }
};

template <class T>
class Reference {
  using Sum = std::conditional_t<std::is_same_v<T, double>, long double, double>;

 public:
  Reference(const ConvProblem& p, const ConvOperands& o) : p(p), o(o) {}

  void run(int threads) {
    switch (p.direction) {
      case Direction::fprop: return fprop(threads);
      case Direction::dgrad: return dgrad(threads);
      case Direction::wgrad: return wgrad(threads);
    }
  }

 private:
  const ConvProblem& p;
  const ConvOperands& o;
  const View in{p.in_channels, {p.in[0], p.in[1], p.in[2]}, p.channels_last};
  const View out{p.out_channels, {p.out[0], p.out[1], p.out[2]}, p.channels_last};
  // The weight is a tensor of the same memory format: (K, C/groups, taps), or (C, K/groups, taps) if transposed.
  const View weight{(p.transposed ? p.out_channels : p.in_channels) / p.groups, {p.kernel[0], p.kernel[1], p.kernel[2]}, p.channels_last};
  const Relation relation{p};
  const int64_t c_per_group = p.in_channels / p.groups, k_per_group = p.out_channels / p.groups;

  static Sum at(const void* tensor, int64_t i) { return to_float(static_cast<const T*>(tensor)[i]); }
  static void put(void* tensor, int64_t i, Sum x) { round(static_cast<double>(x), static_cast<T*>(tensor)[i]); }
  static void round(double x, double& to) { to = x; }
  template <class U>
  static void round(double x, U& to) { from_float(static_cast<float>(x), to); }

  int64_t weight_offset(int64_t c, int64_t k, const Pixel& tap) const {
    return p.transposed ? weight.offset(c, k % k_per_group, tap) : weight.offset(k, c % c_per_group, tap);
  }
  // The output pixel that tap connects to an input pixel, and the other way round.
  bool output_of(const Pixel& i, const Pixel& tap, Pixel& to) const {
    return p.transposed ? relation.large_of(i, tap, out, to) : relation.small_of(i, tap, out, to);
  }
  bool input_of(const Pixel& q, const Pixel& tap, Pixel& to) const {
    return p.transposed ? relation.small_of(q, tap, in, to) : relation.large_of(q, tap, in, to);
  }
  // The gradient that arrives at the convolution's own result: through the activation.
  Sum gradient(int64_t offset) const {
    const Sum g = at(o.grad_output, offset);
    return p.activation == Activation::none ? g : g * slope(p.activation, static_cast<double>(at(o.saved, offset)));
  }

  void fprop(int threads) {
    parallel_for(threads, p.batch * p.out_channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t nk = begin; nk < end; ++nk) {
        const int64_t n = nk / p.out_channels, k = nk % p.out_channels, first_c = k / k_per_group * c_per_group;
        for (int64_t i = 0; i < out.pixels(); ++i) {
          const Pixel q = out.pixel(i);
          Sum sum = p.bias ? at(o.bias, k) : 0;
          for (int64_t t = 0; t < weight.pixels(); ++t) {
            const Pixel tap = weight.pixel(t);
            Pixel from;
            if (!input_of(q, tap, from)) continue;
            for (int64_t c = first_c; c < first_c + c_per_group; ++c)
              sum += at(o.input, in.offset(n, c, from)) * at(o.weight, weight_offset(c, k, tap));
          }
          if (o.output_saved) put(o.output_saved, out.offset(n, k, q), sum);
          put(o.output, out.offset(n, k, q), activate(p.activation, static_cast<double>(sum)));
        }
      }
    });
  }

  void dgrad(int threads) {
    parallel_for(threads, p.batch * p.in_channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t nc = begin; nc < end; ++nc) {
        const int64_t n = nc / p.in_channels, c = nc % p.in_channels, first_k = c / c_per_group * k_per_group;
        for (int64_t i = 0; i < in.pixels(); ++i) {
          const Pixel x = in.pixel(i);
          Sum sum = 0;
          for (int64_t t = 0; t < weight.pixels(); ++t) {
            const Pixel tap = weight.pixel(t);
            Pixel to;
            if (!output_of(x, tap, to)) continue;
            for (int64_t k = first_k; k < first_k + k_per_group; ++k)
              sum += gradient(out.offset(n, k, to)) * at(o.weight, weight_offset(c, k, tap));
          }
          put(o.grad_input, in.offset(n, c, x), sum);
        }
      }
    });
  }

  void wgrad(int threads) {
    parallel_for(threads, p.out_channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const int64_t first_c = k / k_per_group * c_per_group;
        for (int64_t c = first_c; c < first_c + c_per_group; ++c) {
          for (int64_t t = 0; t < weight.pixels(); ++t) {
            const Pixel tap = weight.pixel(t);
            Sum sum = 0;
            for (int64_t n = 0; n < p.batch; ++n) {
              for (int64_t i = 0; i < out.pixels(); ++i) {
                const Pixel q = out.pixel(i);
                Pixel from;
                if (input_of(q, tap, from)) sum += gradient(out.offset(n, k, q)) * at(o.input, in.offset(n, c, from));
              }
            }
            put(o.grad_weight, weight_offset(c, k, tap), sum);
          }
        }
        if (!p.bias) continue;
        Sum sum = 0;
        for (int64_t n = 0; n < p.batch; ++n)
          for (int64_t i = 0; i < out.pixels(); ++i) sum += gradient(out.offset(n, k, out.pixel(i)));
        put(o.grad_bias, k, sum);
      }
    });
  }
};

}  // namespace

void conv_reference(const ConvProblem& p, const ConvTiles&, const ConvOperands& o, int threads) {
  switch (p.dtype) {
    case DType::f32: return Reference<float>(p, o).run(threads);
    case DType::f64: return Reference<double>(p, o).run(threads);
    case DType::bf16: return Reference<bf16>(p, o).run(threads);
    case DType::f16: return Reference<f16>(p, o).run(threads);
  }
}

}  // namespace accelops
