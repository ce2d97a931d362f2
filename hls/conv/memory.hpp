// The stages of a convolution that read and write memory, in bursts, and nothing else.
#pragma once

#include "tiles.hpp"
#include "trip.hpp"

namespace accelops {
namespace {

// Of the columns of a row, every `skip`-th goes into the patch.
struct Columns {
  uint32_t skip, at;

  bool kept() const { return at == 0; }
  void next() { at = at + 1 == skip ? 0 : at + 1; }
};

// II=1, a trip for each column of zeros.
void zeros(Blocks& to, uint32_t count, Columns& columns, int lane) {
#pragma HLS INLINE
  (void)lane;
  for (uint32_t i = 0; i < count; ++i) {
#pragma HLS PIPELINE II=1
    if (columns.kept()) to.write(0);
    columns.next();
    TRIP(kLoadX * kMostLanes + lane, 1);
  }
}

// II=1, a trip for each beat: kBlockBeats a column, one burst.
void row(const Beat* from, Blocks& to, uint32_t beats, Columns& columns, int lane) {
#pragma HLS INLINE
  (void)lane;
  Block block = 0;
  int part = 0;
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS PIPELINE II=1
    const Beat beat = from[i];
    for (int word = 0; word < kPortBits / 64; ++word) {
#pragma HLS UNROLL
      const uint64_t bits = beat.range(64 * word + 63, 64 * word);
      block.range(part * kPortBits + 64 * word + 63, part * kPortBits + 64 * word) = bits;
    }
    part = part + 1 == kBlockBeats ? 0 : part + 1;
    if (part == 0 && columns.kept()) to.write(block);
    if (part == 0) columns.next();
    TRIP(kLoadX * kMostLanes + lane, 1);
  }
}

// A lane's part of the patch of a tile, block of channels by block, row by row, with zeros where it reaches beyond the image.
void load_x(const Beat* x, Tiles& tiles, Blocks& to, uint32_t count, Geometry g, int lane) {
  for (uint32_t t = 0; t < count; ++t) {
    const Tile tile = tiles.read();
    const uint32_t span = (tile.columns - 1) * g.skip_w() + 1;
    const int32_t top = int32_t(tile.p * g.stride_h) - int32_t(g.padding_h);
    const int32_t first = int32_t(tile.q * g.stride_w) - int32_t(g.padding_w), end = first + int32_t(span);
    const uint32_t left = first < 0 ? least(uint32_t(-first), span) : 0;
    const int32_t begin = first < 0 ? 0 : first, beyond = end > int32_t(g.W) ? int32_t(g.W) : end;
    const uint32_t inside = beyond > begin ? uint32_t(beyond - begin) : 0;
    for (uint32_t n = tile.n; n < tile.n + tile.ns; ++n)
      for (uint32_t block = uint32_t(lane); block < g.C * kBlocks; block += kLanes)
        for (uint32_t r = 0; r < tile.rows; ++r) {
          const int32_t h = top + int32_t(r * g.skip_h());
          if (h < 0 || h >= int32_t(g.H)) {
            Columns all = {1, 0};
            zeros(to, tile.columns, all, lane);
          } else {
            const size_t plane = size_t(n) * g.C_total * kBlocks + block;
            Columns columns = {g.skip_w(), 0};
            zeros(to, left, columns, lane);
            const Beat* const from = x + ((plane * g.H + uint32_t(h)) * g.W + uint32_t(begin)) * kBlockBeats;
            row(from, to, inside * kBlockBeats, columns, lane);
            zeros(to, span - left - inside, columns, lane);
          }
        }
  }
}

// II=1, a trip for each beat of all weights, for each tile; one burst.
void load_w(const Beat* w, Beats& to, uint32_t count, Geometry g) {
  const uint32_t beats = g.K * g.taps() * kBlock * kBlocks * kBlockBeats;
  for (uint32_t t = 0; t < count; ++t)
    for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS PIPELINE II=1
      to.write(w[i]);
      TRIP(kLoadW * kMostLanes, 1);
    }
}

// II=1, a trip for each beat of the constants of all blocks of outputs, for each tile: to the lane that makes the block.
void load_constants(const Beat* constants, Beats to[kLanes], uint32_t count, uint32_t beats, Geometry g) {
  for (uint32_t t = 0; t < count; ++t)
    for (uint32_t k = 0; k < g.K; ++k)
      for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS PIPELINE II=1
        to[k % kLanes].write(constants[k * beats + i]);
        TRIP(kLoadConstants * kMostLanes, 1);
      }
}

// II=1, a trip for each beat of a lane's blocks of y, `beats` a block; a burst for each row of a tile.
void store(Tiles& tiles, Beats& from, Beat* y, uint32_t count, uint32_t beats, Geometry g, int lane) {
  for (uint32_t t = 0; t < count; ++t) {
    const Tile tile = tiles.read();
    for (uint32_t k = uint32_t(lane); k < g.K; k += kLanes)
      for (uint32_t n = tile.n; n < tile.n + tile.ns; ++n)
        for (uint32_t p = tile.p; p < tile.p + tile.ps; ++p) {
          const size_t begin = (((size_t(n) * g.K_total + k) * g.P + p) * g.Q + tile.q) * beats;
          for (uint32_t i = 0; i < tile.qs * beats; ++i) {
#pragma HLS PIPELINE II=1
            y[begin + i] = from.read();
            TRIP(kStore * kMostLanes + lane, 1);
          }
        }
  }
}

}  // namespace
}  // namespace accelops
