// The stages of a convolution that compute: the array of multipliers with its buffers. What an engine multiplies with is
// its own (multiply_pixel), and so is what becomes of the sums.
#pragma once

#include "tiles.hpp"
#include "trip.hpp"

namespace accelops {
namespace {

// II=1, a trip for kLanes blocks of the patch, one from each: into the buffer, block `group * kLanes + lane` of a word.
void fill(Tiles& tiles, Blocks from[kLanes], Block patch[kBlocks][kInputWords], Tile& tile, Geometry g) {
  tile = tiles.read();
  const uint32_t plane = tile.rows * tile.columns;
  uint32_t base = 0;
  for (uint32_t word = 0; word < tile.ns * g.C; ++word) {
    for (int group = 0; group < kBlocks / kLanes; ++group)
      for (uint32_t i = 0; i < plane; ++i) {
#pragma HLS PIPELINE II=1
        for (int lane = 0; lane < kLanes; ++lane) {
#pragma HLS UNROLL
          patch[group * kLanes + lane][base + i] = from[lane].read();
        }
        TRIP(kFill * kMostLanes, 1);
      }
    base += plane;
  }
}

// Two sets of weights, kInputs of each of kBlock outputs: one multiplies, the other is filled, a beat a trip.
typedef Element WeightSet[kBlock][kInputs];

constexpr int kWeightBeats = kBlock * kBlocks * kBlockBeats;
static_assert(kWeightBeats >= 16, "a tap takes 16 cycles at least: the distance that multiply's DEPENDENCE promises");

void put_weights(WeightSet& weights, int index, const Beat& beat) {
#pragma HLS INLINE
  constexpr int per_output = kBlocks * kBlockBeats;
  for (int lane = 0; lane < kElements; ++lane) {
#pragma HLS UNROLL
    const uint32_t bits = beat.range(kElementBits * (lane + 1) - 1, kElementBits * lane);
    weights[index / per_output][index % per_output * kElements + lane] = element_of(bits);
  }
}

// One pixel, one tap: the sums over kInputs channels, for each of kBlock outputs.
Sums multiply_pixel(const Block word[kBlocks], const WeightSet& w);

// The tap that multiplies: word of channels, row and column of the kernel; counted without dividing.
struct Tap {
  uint32_t c, r, s;

  bool first() const { return c == 0 && r == 0 && s == 0; }
  bool last(const Geometry& g) const { return c + 1 == g.C && r + 1 == g.R && s + 1 == g.S; }
  void next(const Geometry& g) {
    if (++s < g.S) return;
    s = 0;
    if (++r < g.R) return;
    r = 0;
    c = c + 1 == g.C ? 0 : c + 1;
  }
};

// Where in the patch the pixels of a tile find their input at a tap: walked in the pixels' order, without dividing.
struct Walk {
  uint32_t n, p, q;

  uint32_t word(const Tile& tile, const Tap& tap, const Geometry& g) const {
    const uint32_t h = p * g.step_h() + tap.r * g.dilation_h, w = q * g.step_w() + tap.s * g.dilation_w;
    return ((n * g.C + tap.c) * tile.rows + h) * tile.columns + w;
  }
  void next(const Tile& tile) {
    const bool row_ends = ++q == tile.qs;
    if (row_ends) q = 0;
    if (row_ends && ++p == tile.ps) {
      p = 0;
      ++n;
    }
  }
};

// II=1: the first weights, kWeightBeats trips; then, for each tap of each block of outputs, as many trips as the tile has
// pixels or the next weights have beats, whichever is more: enough for a sum to be complete when the next tap adds to it.
void multiply(const Block patch[kBlocks][kInputWords], Tile tile, Beats& from, SumBlocks to[kLanes], Geometry g) {
  Sum partial[kTilePixels][kBlock];
#pragma HLS ARRAY_RESHAPE variable=partial complete dim=2
  WeightSet weights[2];
#pragma HLS ARRAY_PARTITION variable=weights complete dim=0
  for (int i = 0; i < kWeightBeats; ++i) {
#pragma HLS PIPELINE II=1
    put_weights(weights[0], i, from.read());
    TRIP(kMultiply * kMostLanes, 1);
  }
  const uint32_t pixels = tile.pixels(), trips = pixels < uint32_t(kWeightBeats) ? kWeightBeats : pixels;
  const uint32_t sets = g.K * g.taps();
  Tap tap = {0, 0, 0};
  int lane = 0;  // of the block of outputs
  for (uint32_t set = 0; set < sets; ++set) {
    Walk at = {0, 0, 0};
    for (uint32_t i = 0; i < trips; ++i) {
#pragma HLS PIPELINE II=1
#pragma HLS DEPENDENCE variable=partial type=inter direction=RAW distance=16 dependent=true
      TRIP(kMultiply * kMostLanes, 1);
      if (i < uint32_t(kWeightBeats) && set + 1 < sets) put_weights(weights[(set + 1) & 1], int(i), from.read());
      if (i >= pixels) continue;
      const uint32_t index = at.word(tile, tap, g);
      Block word[kBlocks];
      for (int b = 0; b < kBlocks; ++b) {
#pragma HLS UNROLL
        word[b] = patch[b][index];
      }
      Sums sums = multiply_pixel(word, weights[set & 1]);
      for (int k = 0; k < kBlock; ++k) {
#pragma HLS UNROLL
        if (!tap.first()) sums.lane[k] = partial[i][k] + sums.lane[k];
        partial[i][k] = sums.lane[k];
      }
      if (tap.last(g)) to[lane].write(sums);
      at.next(tile);
    }
    if (tap.last(g)) lane = lane + 1 == kLanes ? 0 : lane + 1;
    tap.next(g);
  }
}

// Tile after tile: the next one's patch is filled while this one multiplies (two buffers, made by DATAFLOW).
void multiply_tiles(Tiles& tiles, Blocks x[kLanes], Beats& w, SumBlocks sums[kLanes], uint32_t count, Geometry g) {
  for (uint32_t t = 0; t < count; ++t) {
#pragma HLS DATAFLOW
    Block patch[kBlocks][kInputWords];
#pragma HLS ARRAY_PARTITION variable=patch dim=1 complete
    Tile tile;
    fill(tiles, x, patch, tile, g);
    multiply(patch, tile, w, sums, g);
  }
}

}  // namespace
}  // namespace accelops
