// A convolution, whatever its elements: tile by tile, its inputs come onto the chip once and serve all output channels;
// weights come once a tile, those of the next tap while the present one multiplies. A tap of a word of channels takes a
// cycle for each pixel of the tile. Per launch: 2*N*P*Q*K*C*R*S flops (padded channels); bytes: the weights for each tile,
// the tiles' inputs with their halo, y once.
#pragma once

#include "array.hpp"
#include "memory.hpp"

namespace accelops {
namespace {

// Beats of the engine's constants for a block of outputs: none where the call uses none.
uint32_t constant_beats(const Geometry& g);

// What becomes of the sums of a lane's blocks. II=1, trips for the constants of each block of each tile, then one for each
// beat of y.
void finish(Beats& constants, Tiles& tiles, SumBlocks& from, Beats& to, uint32_t count, Geometry g, int lane);

// A trip for each tile.
void schedule(Tiles to_x[kLanes], Tiles& to_fill, Tiles to_finish[kLanes], Tiles to_store[kLanes], Geometry g) {
  for (uint32_t n = 0; n < g.N; n += g.tile_n)
    for (uint32_t p = 0; p < g.P; p += g.tile_p)
      for (uint32_t q = 0; q < g.Q; q += g.tile_q) {
#pragma HLS PIPELINE II=1
        const uint32_t ns = least(g.tile_n, g.N - n), ps = least(g.tile_p, g.P - p), qs = least(g.tile_q, g.Q - q);
        const Tile tile = {n, p, q, ns, ps, qs, (ps - 1) * g.step_h() + (g.R - 1) * g.dilation_h + 1,
                           (qs - 1) * g.step_w() + (g.S - 1) * g.dilation_w + 1};
        to_fill.write(tile);
        for (int lane = 0; lane < kLanes; ++lane) {
#pragma HLS UNROLL
          to_x[lane].write(tile);
          to_finish[lane].write(tile);
          to_store[lane].write(tile);
        }
        TRIP(kSchedule * kMostLanes, 1);
      }
}

// The second pointers are those of the second lane, where there is one. kLanes is a constant, so that what it excludes is
// not there when DATAFLOW looks.
void convolve(const Beat* x, const Beat* x1, const Beat* w, const Beat* constants, Beat* y, Beat* y1, uint32_t count,
              uint32_t out_beats, Geometry g) {
#pragma HLS DATAFLOW
  constexpr int last = kLanes - 1;
  Tiles to_x[kLanes], to_fill("to_fill"), to_finish[kLanes], to_store[kLanes];
  Blocks blocks[kLanes];
  Beats weights("weights"), per_block[kLanes], results[kLanes];
  SumBlocks sums[kLanes];
#pragma HLS STREAM variable=to_x depth=4
#pragma HLS STREAM variable=to_fill depth=4
#pragma HLS STREAM variable=to_finish depth=4
#pragma HLS STREAM variable=to_store depth=4
#pragma HLS STREAM variable=blocks depth=kStreamDepth
#pragma HLS STREAM variable=weights depth=kStreamDepth
#pragma HLS STREAM variable=per_block depth=kStreamDepth
#pragma HLS STREAM variable=results depth=kStreamDepth
#pragma HLS STREAM variable=sums depth=kTilePixels
  schedule(to_x, to_fill, to_finish, to_store, g);
  load_x(x, to_x[0], blocks[0], count, g, 0);
  if (kLanes > 1) load_x(x1, to_x[last], blocks[last], count, g, last);
  load_w(w, weights, count, g);
  load_constants(constants, per_block, count, constant_beats(g), g);
  multiply_tiles(to_fill, blocks, weights, sums, count, g);
  finish(per_block[0], to_finish[0], sums[0], results[0], count, g, 0);
  if (kLanes > 1) finish(per_block[last], to_finish[last], sums[last], results[last], count, g, last);
  store(to_store[0], results[0], y, count, out_beats, g, 0);
  if (kLanes > 1) store(to_store[last], results[last], y1, count, out_beats, g, last);
}

// 0 where there is nothing to do.
uint32_t tiles_of(const Geometry& g) {
  const bool nothing = g.N == 0 || g.P == 0 || g.Q == 0 || g.K == 0;
  return nothing ? 0 : beats_of(g.N, g.tile_n) * beats_of(g.P, g.tile_p) * beats_of(g.Q, g.tile_q);
}

}  // namespace
}  // namespace accelops
