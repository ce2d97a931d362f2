// Convolution in int8 with int32 sums (int8.hpp says of what), by an array of kInputs x kBlock multipliers, two of them in
// one DSP; sums raw or requantised. Run-time geometry: one synthesis serves every layer. engine.hpp has the algorithm.
#include "int8.hpp"

#include "engine.hpp"

namespace accelops {
namespace {

// w0 * x and w1 * x by one multiplier: the low product is the low 16 bits, and where it is negative it has borrowed one
// from the high (AMD WP486, "Deep Learning with INT8 Optimization").
void multiply_two(int8_t w0, int8_t w1, int8_t x, int32_t& sum0, int32_t& sum1) {
#pragma HLS INLINE
  const ap_int<25> both = int32_t(w1) * 65536 + w0;
  const ap_int<33> product = both * ap_int<8>(x);
#pragma HLS BIND_OP variable=product op=mul impl=dsp
  const ap_int<16> low = int64_t(product);
  const ap_int<17> high = (product >> 16) + (low < 0 ? 1 : 0);
  sum0 += int32_t(low);
  sum1 += int32_t(high);
}

Sums multiply_pixel(const Block word[kBlocks], const WeightSet& w) {
#pragma HLS INLINE
  Sums sums = Sums();
  for (int c = 0; c < kInputs; ++c) {
#pragma HLS UNROLL
    const int lane = c % kBlock;
    const uint32_t bits = word[c / kBlock].range(8 * lane + 7, 8 * lane);
    for (int k = 0; k < kBlock; k += 2) {
#pragma HLS UNROLL
      multiply_two(w[k][c], w[k + 1][c], element_of(bits), sums.lane[k], sums.lane[k + 1]);
    }
  }
  return sums;
}

int8_t requantised(int32_t sum, int32_t bias, int32_t multiplier, int32_t shift, int32_t lowest) {
#pragma HLS INLINE
  const int64_t product = (int64_t(sum) + bias) * multiplier;
  const int64_t rounded = (product + (int64_t(1) << (30 + shift))) >> (31 + shift);
  return int8_t(rounded > 127 ? 127 : rounded < lowest ? lowest : rounded);
}

uint32_t constant_beats(const Geometry& g) { return g.flags & kRaw ? 0 : 3 * kScaleBeats; }

void finish(Beats& scale, Tiles& tiles, SumBlocks& from, Beats& to, uint32_t count, Geometry g, int lane) {
  const bool raw = g.flags & kRaw;
  int32_t constant[3][kBlock];
#pragma HLS ARRAY_PARTITION variable=constant complete dim=0
  const int lanes = raw ? kFloats : kPortBits / 8, beats = kBlock / lanes;
  for (uint32_t t = 0; t < count; ++t) {
    const uint32_t pixels = tiles.read().pixels();
    for (uint32_t k = uint32_t(lane); k < g.K; k += kLanes) {
      for (int i = 0; i < int(constant_beats(g)); ++i) {
#pragma HLS PIPELINE II=1
        const Beat beat = scale.read();
        for (int lane = 0; lane < kFloats; ++lane) {
#pragma HLS UNROLL
          const uint32_t bits = beat.range(32 * lane + 31, 32 * lane);
          constant[i / kScaleBeats][i % kScaleBeats * kFloats + lane] = int32_t(bits);
        }
        TRIP(kFinish * kMostLanes + lane, 1);
      }
      Sums sums = Sums();
      int part = 0;
      for (uint32_t i = 0; i < pixels * uint32_t(beats); ++i) {
#pragma HLS PIPELINE II=1
        if (part == 0) sums = from.read();
        Beat beat = 0;
        for (int lane = 0; lane < kPortBits / 8; ++lane) {
#pragma HLS UNROLL
          const int channel = part * lanes + lane;
          if (raw && lane < kFloats) beat.range(32 * lane + 31, 32 * lane) = uint32_t(sums.lane[channel]);
          if (!raw)
            beat.range(8 * lane + 7, 8 * lane) = uint8_t(
                requantised(sums.lane[channel], constant[0][channel], constant[1][channel], constant[2][channel], g.lowest));
        }
        to.write(beat);
        part = part + 1 == beats ? 0 : part + 1;
        TRIP(kFinish * kMostLanes + lane, 1);
      }
    }
  }
}

}  // namespace
}  // namespace accelops

using accelops::Beat;

extern "C" void conv_int8(const Beat* x, const Beat* w, const Beat* scale, Beat* y, const Beat* x1, Beat* y1, uint32_t N,
                          uint32_t H, uint32_t W, uint32_t C, uint32_t K, uint32_t R, uint32_t S, uint32_t P, uint32_t Q,
                          uint32_t stride_h, uint32_t stride_w, uint32_t padding_h, uint32_t padding_w,
                          uint32_t dilation_h, uint32_t dilation_w, uint32_t tile_n, uint32_t tile_p, uint32_t tile_q,
                          uint32_t C_total, uint32_t K_total, uint32_t flags, int32_t lowest, uint64_t* identity) {
#pragma HLS INTERFACE mode=m_axi port=x bundle=gmem0 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=w bundle=gmem1 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=scale bundle=gmem3 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=y bundle=gmem2 offset=slave max_write_burst_length=64 num_write_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=x1 bundle=gmem2 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=y1 bundle=gmem0 offset=slave max_write_burst_length=64 num_write_outstanding=16
#pragma HLS INTERFACE mode=s_axilite port=N
#pragma HLS INTERFACE mode=s_axilite port=H
#pragma HLS INTERFACE mode=s_axilite port=W
#pragma HLS INTERFACE mode=s_axilite port=C
#pragma HLS INTERFACE mode=s_axilite port=K
#pragma HLS INTERFACE mode=s_axilite port=R
#pragma HLS INTERFACE mode=s_axilite port=S
#pragma HLS INTERFACE mode=s_axilite port=P
#pragma HLS INTERFACE mode=s_axilite port=Q
#pragma HLS INTERFACE mode=s_axilite port=stride_h
#pragma HLS INTERFACE mode=s_axilite port=stride_w
#pragma HLS INTERFACE mode=s_axilite port=padding_h
#pragma HLS INTERFACE mode=s_axilite port=padding_w
#pragma HLS INTERFACE mode=s_axilite port=dilation_h
#pragma HLS INTERFACE mode=s_axilite port=dilation_w
#pragma HLS INTERFACE mode=s_axilite port=tile_n
#pragma HLS INTERFACE mode=s_axilite port=tile_p
#pragma HLS INTERFACE mode=s_axilite port=tile_q
#pragma HLS INTERFACE mode=s_axilite port=C_total
#pragma HLS INTERFACE mode=s_axilite port=K_total
#pragma HLS INTERFACE mode=s_axilite port=flags
#pragma HLS INTERFACE mode=s_axilite port=lowest
#pragma HLS INTERFACE mode=s_axilite port=identity
#pragma HLS INTERFACE mode=ap_ctrl_hs port=return
#pragma HLS INTERFACE mode=s_axilite port=return
  using namespace accelops;
  *identity = kConvInt8Identity;
  const Geometry g = {N, H, W, C, K, R, S, P, Q, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w,
                      tile_n, tile_p, tile_q, C_total, K_total, flags, lowest};
  const uint32_t count = tiles_of(g), out_beats = flags & kRaw ? kScaleBeats : kBlockBeats;
  if (count) convolve(x, x1, w, scale, y, y1, count, out_beats, g);
}
