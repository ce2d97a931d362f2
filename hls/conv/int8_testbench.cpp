// The int8 convolution against plain loops, exact: kernels from 1x1 to 5x3, strides, paddings, dilations, tiles that do not
// divide the output, several words of channels, no images at all; int32 sums and requantised outputs, with and without ReLU.
#include "testbench.hpp"

#include <algorithm>

#include "int8.hpp"
#include "layers.hpp"

namespace accelops {
namespace {

// Mostly anything, often the extremes, whose products two multipliers in one DSP get wrong first.
uint8_t random_byte(Testbench& bench) { return bench.below(4) ? uint8_t(bench.below(256)) : bench.below(2) ? 0x80 : 0x7f; }

std::vector<Beat> random_bytes(Testbench& bench, size_t bytes) {
  std::vector<Beat> beats(bytes / (kPortBits / 8) + 1);
  for (Beat& beat : beats)
    for (int i = 0; i < kPortBits / 8; ++i) beat.range(8 * i + 7, 8 * i) = random_byte(bench);
  return beats;
}

int8_t byte_at(const std::vector<Beat>& beats, size_t i) {
  const int lane = int(i % (kPortBits / 8));
  return int8_t(uint8_t(uint64_t(beats[i / (kPortBits / 8)].range(8 * lane + 7, 8 * lane))));
}

int32_t sum_of(const Layer& l, const std::vector<Beat>& x, const std::vector<Beat>& w, uint32_t n, uint32_t k, uint32_t p,
               uint32_t q) {
  int32_t sum = 0;
  for (uint32_t r = 0; r < l.R; ++r)
    for (uint32_t s = 0; s < l.S; ++s) {
      uint32_t h, v;
      if (!input_at(p, r, l.stride_h, l.dilation_h, l.padding_h, l.H, h)) continue;
      if (!input_at(q, s, l.stride_w, l.dilation_w, l.padding_w, l.W, v)) continue;
      for (uint32_t c = 0; c < l.C * kInputs; ++c) sum += byte_at(x, x_at(l, n, c, h, v)) * byte_at(w, w_at(l, k, c, r, s));
    }
  return sum;
}

int32_t requantised(int32_t sum, const Array& scale, uint32_t k, int32_t lowest) {
  const uint32_t at = k / kBlock * 3 * kBlock + k % kBlock;
  const int32_t bias = int32_t(scale.get(at)), multiplier = int32_t(scale.get(at + kBlock));
  const int32_t shift = int32_t(scale.get(at + 2 * kBlock));
  const long double exact = std::ldexp((long double)((int64_t(sum) + bias) * multiplier), -(31 + shift));
  return int32_t(std::min(127.0L, std::max((long double)lowest, std::floor(exact + 0.5L))));
}

void run(Testbench& bench, const Layer& l, bool raw, int32_t lowest) {
  const std::vector<Beat> x = random_bytes(bench, size_t(l.N) * l.C * kInputs * l.H * l.W);
  const std::vector<Beat> w = random_bytes(bench, size_t(l.K) * kBlock * l.C * kInputs * l.R * l.S);
  Array scale(l.K * 3 * kBlock, 32);
  for (uint32_t k = 0; k < l.K; ++k)
    for (uint32_t i = 0; i < uint32_t(kBlock); ++i) {
      const uint32_t at = k * 3 * kBlock + i;
      scale.set(at, bench.below(2000) - 1000);
      scale.set(at + kBlock, (1u << 30) + bench.below(1u << 30));
      scale.set(at + 2 * kBlock, 6 + bench.below(6));
    }
  const uint32_t P = l.P(), Q = l.Q();
  Array y(l.N * l.K * kBlock * P * Q, raw ? 32 : 8);
  uint64_t identity = 0;
  conv_int8(x.data(), w.data(), scale.data(), y.data(), x.data(), y.data(), l.N, l.H, l.W, l.C, l.K, l.R, l.S, P, Q,
            l.stride_h, l.stride_w, l.padding_h, l.padding_w, l.dilation_h, l.dilation_w, l.tile_n, l.tile_p, l.tile_q, l.C,
            l.K, raw ? kRaw : 0, lowest, &identity);
  for (uint32_t n = 0; n < l.N; ++n)
    for (uint32_t k = 0; k < l.K * kBlock; ++k)
      for (uint32_t p = 0; p < P; ++p)
        for (uint32_t q = 0; q < Q; ++q) {
          const uint32_t at = uint32_t(y_at(l, n, k, p, q));
          const int32_t sum = sum_of(l, x, w, n, k, p, q);
          bench.same("y", at, y.get(at), raw ? uint32_t(sum) : uint8_t(requantised(sum, scale, k, lowest)));
        }
  y.check_end(bench, "y");
  bench.same("VERSION", 0, uint32_t(identity), uint32_t(kConvInt8Identity));
  bench.same("CONFIG_HASH", 0, uint32_t(identity >> 32), uint32_t(kConvInt8Identity >> 32));
}

}  // namespace
}  // namespace accelops

int main(int argc, char** argv) {
  accelops::Testbench bench("conv_int8", argc, argv);
  for (const auto& layer : accelops::kLayers) {
    accelops::run(bench, layer, true, -128);
    accelops::run(bench, layer, false, bench.below(2) ? -128 : 0);
  }
  return bench.status();
}
