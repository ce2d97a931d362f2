// The fp32 convolution against plain loops that add in the order of fp32.hpp, equal to the bit, over the layers of layers.hpp:
// without and with bias and ReLU.
#include "testbench.hpp"

#include "fp32.hpp"
#include "layers.hpp"

namespace accelops {
namespace {

// The products of a word of channels, added by halves.
float word_sum(const Layer& l, const Array& x, const Array& w, uint32_t n, uint32_t k, uint32_t h, uint32_t v, uint32_t c,
               uint32_t r, uint32_t s, bool inside) {
  std::vector<float> sums(kInputs);
  for (uint32_t i = 0; i < uint32_t(kInputs); ++i)
    sums[i] = w.value(uint32_t(w_at(l, k, c + i, r, s))) * (inside ? x.value(uint32_t(x_at(l, n, c + i, h, v))) : 0.0f);
  while (sums.size() > 1) {
    const size_t half = sums.size() / 2;
    for (size_t i = 0; i < half; ++i) sums[i] += sums[i + half];
    sums.resize(half);
  }
  return sums[0];
}

float sum_of(const Layer& l, const Array& x, const Array& w, uint32_t n, uint32_t k, uint32_t p, uint32_t q) {
  float sum = 0;
  bool first = true;
  for (uint32_t c = 0; c < l.C * kInputs; c += kInputs)
    for (uint32_t r = 0; r < l.R; ++r)
      for (uint32_t s = 0; s < l.S; ++s) {
        uint32_t h, v;
        const bool inside = input_at(p, r, l.stride_h, l.dilation_h, l.padding_h, l.H, h) &
                            input_at(q, s, l.stride_w, l.dilation_w, l.padding_w, l.W, v);
        const float word = word_sum(l, x, w, n, k, h, v, c, r, s, inside);
        sum = first ? word : sum + word;
        first = false;
      }
  return sum;
}

Array random_floats(Testbench& bench, size_t numel) {
  Array array(uint32_t(numel), 32);
  for (uint32_t i = 0; i < array.numel(); ++i) array.set_value(i, bench.normal());
  return array;
}

void run(Testbench& bench, const Layer& l, uint32_t flags) {
  Array x = random_floats(bench, size_t(l.N) * l.C * kInputs * l.H * l.W);
  Array w = random_floats(bench, size_t(l.K) * kBlock * l.C * kInputs * l.R * l.S);
  Array bias = random_floats(bench, size_t(l.K) * kBlock);
  const uint32_t P = l.P(), Q = l.Q();
  Array y(l.N * l.K * kBlock * P * Q, 32);
  uint64_t identity = 0;
  conv_fp32(x.data(), w.data(), bias.data(), y.data(), l.N, l.H, l.W, l.C, l.K, l.R, l.S, P, Q, l.stride_h, l.stride_w,
            l.padding_h, l.padding_w, l.dilation_h, l.dilation_w, l.tile_n, l.tile_p, l.tile_q, l.C, l.K, flags, &identity);
  for (uint32_t n = 0; n < l.N; ++n)
    for (uint32_t k = 0; k < l.K * kBlock; ++k)
      for (uint32_t p = 0; p < P; ++p)
        for (uint32_t q = 0; q < Q; ++q) {
          float expected = sum_of(l, x, w, n, k, p, q);
          if (flags & kBias) expected += bias.value(k);
          if (flags & kRelu && expected < 0) expected = 0;
          const uint32_t at = uint32_t(y_at(l, n, k, p, q));
          bench.same("y", at, y.get(at), bits_of(expected));
        }
  y.check_end(bench, "y");
  bench.same("VERSION", 0, uint32_t(identity), uint32_t(kConvFp32Identity));
  bench.same("CONFIG_HASH", 0, uint32_t(identity >> 32), uint32_t(kConvFp32Identity >> 32));
}

}  // namespace
}  // namespace accelops

int main(int argc, char** argv) {
  accelops::Testbench bench("conv_fp32", argc, argv);
  for (const auto& layer : accelops::kLayers)
    for (uint32_t flags : {0u, accelops::kBias, accelops::kBias | accelops::kRelu}) accelops::run(bench, layer, flags);
  return bench.status();
}
