// Convolution in int8 with int32 sums (int8.hpp says of what, and how the operands lie), by an array of kInputs x kBlock
// multipliers, two of them in one DSP. Run-time geometry: one synthesis serves every layer.
//
// Tile by tile: its inputs come onto the chip once and serve all output channels; weights come once a tile, those of the
// next tap while the present one multiplies. A tap of a word of channels takes a cycle for each pixel of the tile. Per
// launch: 2*N*P*Q*K*C*R*S flops (padded channels); bytes: tiles * weights, the tiles' inputs with their halo, y once.
#include "array.hpp"
#include "memory.hpp"

namespace accelops {
namespace {

// A trip for each tile.
void schedule(Tiles& to_x, Tiles& to_fill, Tiles& to_requantise, Tiles& to_store, Geometry g) {
  for (uint32_t n = 0; n < g.N; n += g.tile_n)
    for (uint32_t p = 0; p < g.P; p += g.tile_p)
      for (uint32_t q = 0; q < g.Q; q += g.tile_q) {
#pragma HLS PIPELINE II=1
        const uint32_t ns = least(g.tile_n, g.N - n), ps = least(g.tile_p, g.P - p), qs = least(g.tile_q, g.Q - q);
        const Tile tile = {n, p, q, ns, ps, qs, (ps - 1) * g.stride_h + (g.R - 1) * g.dilation_h + 1,
                           (qs - 1) * g.stride_w + (g.S - 1) * g.dilation_w + 1};
        to_x.write(tile);
        to_fill.write(tile);
        to_requantise.write(tile);
        to_store.write(tile);
        TRIP(kSchedule, 1);
      }
}

void convolve(const Beat* x, const Beat* w, const Beat* scale, Beat* y, uint32_t count, Geometry g) {
#pragma HLS DATAFLOW
  Tiles to_x("to_x"), to_fill("to_fill"), to_requantise("to_requantise"), to_store("to_store");
  Blocks blocks("blocks");
  Beats weights("weights"), results("results");
  SumBlocks sums("sums");
#pragma HLS STREAM variable=to_x depth=4
#pragma HLS STREAM variable=to_fill depth=4
#pragma HLS STREAM variable=to_requantise depth=4
#pragma HLS STREAM variable=to_store depth=4
#pragma HLS STREAM variable=blocks depth=kStreamDepth
#pragma HLS STREAM variable=weights depth=kStreamDepth
#pragma HLS STREAM variable=results depth=kStreamDepth
#pragma HLS STREAM variable=sums depth=kConvInt8TilePixels
  schedule(to_x, to_fill, to_requantise, to_store, g);
  load_x(x, to_x, blocks, count, g);
  load_w(w, weights, count, g);
  multiply_tiles(to_fill, blocks, weights, sums, count, g);
  requantise(scale, to_requantise, sums, results, count, g);
  store(to_store, results, y, count, g);
}

}  // namespace
}  // namespace accelops

using accelops::Beat;

extern "C" void conv_int8(const Beat* x, const Beat* w, const Beat* scale, Beat* y, uint32_t N, uint32_t H, uint32_t W,
                          uint32_t C, uint32_t K, uint32_t R, uint32_t S, uint32_t P, uint32_t Q, uint32_t stride_h,
                          uint32_t stride_w, uint32_t padding_h, uint32_t padding_w, uint32_t dilation_h,
                          uint32_t dilation_w, uint32_t tile_n, uint32_t tile_p, uint32_t tile_q, uint32_t flags,
                          int32_t lowest, uint64_t* identity) {
#pragma HLS INTERFACE mode=m_axi port=x bundle=gmem0 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=w bundle=gmem1 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=scale bundle=gmem3 offset=slave max_read_burst_length=64 num_read_outstanding=16
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
#pragma HLS INTERFACE mode=s_axilite port=flags
#pragma HLS INTERFACE mode=s_axilite port=lowest
#pragma HLS INTERFACE mode=s_axilite port=identity
#pragma HLS INTERFACE mode=ap_ctrl_hs port=return
#pragma HLS INTERFACE mode=s_axilite port=return
  using namespace accelops;
  *identity = kConvInt8Identity;
  const Geometry g = {N,         H,         W,          C,          K,      R,      S,      P,                   Q, stride_h, stride_w,
                      padding_h, padding_w, dilation_h, dilation_w, tile_n, tile_p, tile_q, (flags & kRaw) != 0, lowest};
  const bool nothing = N == 0 || P == 0 || Q == 0 || K == 0;
  const uint32_t count = nothing ? 0 : beats_of(N, tile_n) * beats_of(P, tile_p) * beats_of(Q, tile_q);
  if (count) convolve(x, w, scale, y, count, g);
}
