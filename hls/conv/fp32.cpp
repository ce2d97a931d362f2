// Convolution in fp32 (fp32.hpp says of what), by an array of kInputs x kBlock multipliers and adders; bias and ReLU on the
// way out. Run-time geometry: one synthesis serves every layer. engine.hpp has the algorithm. Xilinx's floating-point cores
// take subnormal numbers as zero (PG060), C-simulation does not.
#include "fp32.hpp"

#include "engine.hpp"

namespace accelops {
namespace {

Sums multiply_pixel(const Block word[kBlocks], const WeightSet& w) {
#pragma HLS INLINE
  Sums sums;
  for (int k = 0; k < kBlock; ++k) {
#pragma HLS UNROLL
    float product[kInputs];
    for (int c = 0; c < kInputs; ++c) {
#pragma HLS UNROLL
      const int lane = c % kBlock;
      const uint32_t bits = word[c / kBlock].range(32 * lane + 31, 32 * lane);
      product[c] = w[k][c] * element_of(bits);
    }
    for (int half = kInputs / 2; half > 0; half /= 2) {
#pragma HLS UNROLL
      for (int c = 0; c < half; ++c) {
#pragma HLS UNROLL
        product[c] += product[c + half];
      }
    }
    sums.lane[k] = product[0];
  }
  return sums;
}

uint32_t constant_beats(const Geometry& g) { return g.flags & kBias ? kBlockBeats : 0; }

void finish(Beats& bias, Tiles& tiles, SumBlocks& from, Beats& to, uint32_t count, Geometry g, int lane) {
  const bool biased = g.flags & kBias, relu = g.flags & kRelu;
  Beat constant[kBlockBeats];
#pragma HLS ARRAY_PARTITION variable=constant complete
  for (uint32_t t = 0; t < count; ++t) {
    const uint32_t pixels = tiles.read().pixels();
    for (uint32_t k = uint32_t(lane); k < g.K; k += kLanes) {
      for (int i = 0; i < int(constant_beats(g)); ++i) {
#pragma HLS PIPELINE II=1
        constant[i] = bias.read();
        TRIP(kFinish * kMostLanes + lane, 1);
      }
      Sums sums = Sums();
      int part = 0;
      for (uint32_t i = 0; i < pixels * uint32_t(kBlockBeats); ++i) {
#pragma HLS PIPELINE II=1
        if (part == 0) sums = from.read();
        Beat beat = 0;
        for (int lane = 0; lane < kFloats; ++lane) {
#pragma HLS UNROLL
          const float sum = sums.lane[part * kFloats + lane];
          const float shifted = biased ? sum + float_lane(constant[part], lane) : sum;
          put_float(beat, lane, relu && shifted < 0 ? 0 : shifted);
        }
        to.write(beat);
        part = part + 1 == kBlockBeats ? 0 : part + 1;
        TRIP(kFinish * kMostLanes + lane, 1);
      }
    }
  }
}

}  // namespace
}  // namespace accelops

using accelops::Beat;

extern "C" void conv_fp32(const Beat* x, const Beat* w, const Beat* bias, Beat* y, uint32_t N, uint32_t H, uint32_t W,
                          uint32_t C, uint32_t K, uint32_t R, uint32_t S, uint32_t P, uint32_t Q, uint32_t stride_h,
                          uint32_t stride_w, uint32_t padding_h, uint32_t padding_w, uint32_t dilation_h,
                          uint32_t dilation_w, uint32_t tile_n, uint32_t tile_p, uint32_t tile_q, uint32_t C_total,
                          uint32_t K_total, uint32_t flags, uint64_t* identity) {
#pragma HLS INTERFACE mode=m_axi port=x bundle=gmem0 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=w bundle=gmem1 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=bias bundle=gmem3 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=y bundle=gmem2 offset=slave max_write_burst_length=64 num_write_outstanding=16
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
#pragma HLS INTERFACE mode=s_axilite port=identity
#pragma HLS INTERFACE mode=ap_ctrl_hs port=return
#pragma HLS INTERFACE mode=s_axilite port=return
  using namespace accelops;
  *identity = kConvFp32Identity;
  const Geometry g = {N, H, W, C, K, R, S, P, Q, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w,
                      tile_n, tile_p, tile_q, C_total, K_total, flags, 0};
  const uint32_t count = tiles_of(g);
  if (count) convolve(x, x, w, bias, y, y, count, kBlockBeats, g);
}
