// A convolution, whatever its elements: tile by tile, its inputs come onto the chip once and serve all output channels;
// weights come once a tile, those of the next tap while the present one multiplies. A tap of a word of channels takes a
// cycle for each pixel of the tile. Per launch: 2*N*P*Q*K*C*R*S flops (padded channels); bytes: the weights for each tile,
// the tiles' inputs with their halo, y once.
#pragma once

#include "array.hpp"
#include "memory.hpp"

namespace accelops {
namespace {

// What becomes of the sums: `constants` are the engine's, for each block of outputs. II=1, trips for the constants of each
// block of each tile, then one for each beat of y.
void finish(const Beat* constants, Tiles& tiles, SumBlocks& from, Beats& to, uint32_t count, Geometry g);

// A trip for each tile.
void schedule(Tiles& to_x, Tiles& to_fill, Tiles& to_finish, Tiles& to_store, Geometry g) {
  for (uint32_t n = 0; n < g.N; n += g.tile_n)
    for (uint32_t p = 0; p < g.P; p += g.tile_p)
      for (uint32_t q = 0; q < g.Q; q += g.tile_q) {
#pragma HLS PIPELINE II=1
        const uint32_t ns = least(g.tile_n, g.N - n), ps = least(g.tile_p, g.P - p), qs = least(g.tile_q, g.Q - q);
        const Tile tile = {n, p, q, ns, ps, qs, (ps - 1) * g.step_h() + (g.R - 1) * g.dilation_h + 1,
                           (qs - 1) * g.step_w() + (g.S - 1) * g.dilation_w + 1};
        to_x.write(tile);
        to_fill.write(tile);
        to_finish.write(tile);
        to_store.write(tile);
        TRIP(kSchedule, 1);
      }
}

void convolve(const Beat* x, const Beat* w, const Beat* constants, Beat* y, uint32_t count, uint32_t out_beats, Geometry g) {
#pragma HLS DATAFLOW
  Tiles to_x("to_x"), to_fill("to_fill"), to_finish("to_finish"), to_store("to_store");
  Blocks blocks("blocks");
  Beats weights("weights"), results("results");
  SumBlocks sums("sums");
#pragma HLS STREAM variable=to_x depth=4
#pragma HLS STREAM variable=to_fill depth=4
#pragma HLS STREAM variable=to_finish depth=4
#pragma HLS STREAM variable=to_store depth=4
#pragma HLS STREAM variable=blocks depth=kStreamDepth
#pragma HLS STREAM variable=weights depth=kStreamDepth
#pragma HLS STREAM variable=results depth=kStreamDepth
#pragma HLS STREAM variable=sums depth=kTilePixels
  schedule(to_x, to_fill, to_finish, to_store, g);
  load_x(x, to_x, blocks, count, g);
  load_w(w, weights, count, g);
  multiply_tiles(to_fill, blocks, weights, sums, count, g);
  finish(constants, to_finish, sums, results, count, g);
  store(to_store, results, y, count, out_beats, g);
}

// 0 where there is nothing to do.
uint32_t tiles_of(const Geometry& g) {
  const bool nothing = g.N == 0 || g.P == 0 || g.Q == 0 || g.K == 0;
  return nothing ? 0 : beats_of(g.N, g.tile_n) * beats_of(g.P, g.tile_p) * beats_of(g.Q, g.tile_q);
}

}  // namespace
}  // namespace accelops
