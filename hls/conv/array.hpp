// The stages of the int8 convolution that compute: the array of multipliers with its buffers, and requantisation.
#pragma once

#include "tiles.hpp"
#include "trip.hpp"

namespace accelops {
namespace {

// II=1, a trip for each block of the patch: into the buffer, block `word % kBlocks` of word `word / kBlocks`.
void fill(Tiles& tiles, Blocks& from, Block patch[kBlocks][kConvInt8InputWords], Tile& tile, Geometry g) {
  tile = tiles.read();
  const uint32_t plane = tile.rows * tile.columns;
  uint32_t base = 0;
  int part = 0;
  for (uint32_t block = 0; block < tile.ns * g.C * kBlocks; ++block) {
    for (uint32_t i = 0; i < plane; ++i) {
#pragma HLS PIPELINE II=1
      patch[part][base + i] = from.read();
      TRIP(kFill, 1);
    }
    if (part + 1 == kBlocks) base += plane;
    part = part + 1 == kBlocks ? 0 : part + 1;
  }
}

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

// Two sets of weights, kInputs of each of kBlock outputs: one multiplies, the other is filled, a beat a trip.
typedef int8_t WeightSet[kBlock][kInputs];

constexpr int kWeightBeats = kBlock * kBlocks * kBlockBeats;

void put_weights(WeightSet& weights, int index, const Beat& beat) {
#pragma HLS INLINE
  constexpr int per_output = kBlocks * kBlockBeats;
  for (int lane = 0; lane < kPortBits / 8; ++lane) {
#pragma HLS UNROLL
    const uint32_t bits = beat.range(8 * lane + 7, 8 * lane);
    weights[index / per_output][index % per_output * (kPortBits / 8) + lane] = int8_t(bits);
  }
}

// One pixel, one tap: kInputs channels into kBlock sums.
void multiply_pixel(const Block word[kBlocks], const WeightSet& w, Sums& sums) {
#pragma HLS INLINE
  for (int c = 0; c < kInputs; ++c) {
#pragma HLS UNROLL
    const int lane = c % kBlock;
    const uint32_t bits = word[c / kBlock].range(8 * lane + 7, 8 * lane);
    for (int k = 0; k < kBlock; k += 2) {
#pragma HLS UNROLL
      multiply_two(w[k][c], w[k + 1][c], int8_t(bits), sums.lane[k], sums.lane[k + 1]);
    }
  }
}

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
    const uint32_t h = p * g.stride_h + tap.r * g.dilation_h, w = q * g.stride_w + tap.s * g.dilation_w;
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
// pixels or the next weights have beats, whichever is more (so many at least that a sum is complete when the next tap adds
// to it).
void multiply(const Block patch[kBlocks][kConvInt8InputWords], Tile tile, Beats& from, SumBlocks& to, Geometry g) {
  int32_t partial[kConvInt8TilePixels][kBlock];
#pragma HLS ARRAY_RESHAPE variable=partial complete dim=2
  WeightSet weights[2];
#pragma HLS ARRAY_PARTITION variable=weights complete dim=0
  for (int i = 0; i < kWeightBeats; ++i) {
#pragma HLS PIPELINE II=1
    put_weights(weights[0], i, from.read());
    TRIP(kMultiply, 1);
  }
  const uint32_t pixels = tile.pixels(), trips = pixels < uint32_t(kWeightBeats) ? kWeightBeats : pixels;
  const uint32_t sets = g.K * g.taps();
  Tap tap = {0, 0, 0};
  for (uint32_t set = 0; set < sets; ++set) {
    Walk at = {0, 0, 0};
    for (uint32_t i = 0; i < trips; ++i) {
#pragma HLS PIPELINE II=1
#pragma HLS DEPENDENCE variable=partial type=inter direction=RAW distance=16 dependent=true
      TRIP(kMultiply, 1);
      if (i < uint32_t(kWeightBeats) && set + 1 < sets) put_weights(weights[(set + 1) & 1], int(i), from.read());
      if (i >= pixels) continue;
      const uint32_t index = at.word(tile, tap, g);
      Block word[kBlocks];
      for (int b = 0; b < kBlocks; ++b) {
#pragma HLS UNROLL
        word[b] = patch[b][index];
      }
      Sums sums;
      for (int k = 0; k < kBlock; ++k) {
#pragma HLS UNROLL
        sums.lane[k] = tap.first() ? 0 : partial[i][k];
      }
      multiply_pixel(word, weights[set & 1], sums);
      for (int k = 0; k < kBlock; ++k) {
#pragma HLS UNROLL
        partial[i][k] = sums.lane[k];
      }
      if (tap.last(g)) to.write(sums);
      at.next(tile);
    }
    tap.next(g);
  }
}

// Tile after tile: the next one's patch is filled while this one multiplies (two buffers, made by DATAFLOW).
void multiply_tiles(Tiles& tiles, Blocks& x, Beats& w, SumBlocks& sums, uint32_t count, Geometry g) {
  for (uint32_t t = 0; t < count; ++t) {
#pragma HLS DATAFLOW
    Block patch[kBlocks][kConvInt8InputWords];
#pragma HLS ARRAY_PARTITION variable=patch dim=1 complete
    Tile tile;
    fill(tiles, x, patch, tile, g);
    multiply(patch, tile, w, sums, g);
  }
}

int8_t requantised(int32_t sum, int32_t bias, int32_t multiplier, int32_t shift, int32_t lowest) {
#pragma HLS INLINE
  const int64_t product = (int64_t(sum) + bias) * multiplier;
  const int64_t rounded = (product + (int64_t(1) << (30 + shift))) >> (31 + shift);
  return int8_t(rounded > 127 ? 127 : rounded < lowest ? lowest : rounded);
}

// II=1: 3 * kScaleBeats trips for a block's constants (none where raw), then a trip for each beat of y.
void requantise(const Beat* scale, Tiles& tiles, SumBlocks& from, Beats& to, uint32_t count, Geometry g) {
  int32_t constant[3][kBlock];
#pragma HLS ARRAY_PARTITION variable=constant complete dim=0
  const int lanes = g.raw ? kFloats : kPortBits / 8, beats = kBlock / lanes;
  for (uint32_t t = 0; t < count; ++t) {
    const uint32_t pixels = tiles.read().pixels();
    for (uint32_t k = 0; k < g.K; ++k) {
      for (int i = 0; i < (g.raw ? 0 : 3 * kScaleBeats); ++i) {
#pragma HLS PIPELINE II=1
        const Beat beat = scale[k * (3 * kScaleBeats) + uint32_t(i)];
        for (int lane = 0; lane < kFloats; ++lane) {
#pragma HLS UNROLL
          const uint32_t bits = beat.range(32 * lane + 31, 32 * lane);
          constant[i / kScaleBeats][i % kScaleBeats * kFloats + lane] = int32_t(bits);
        }
        TRIP(kRequantise, 1);
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
          if (g.raw && lane < kFloats) beat.range(32 * lane + 31, 32 * lane) = uint32_t(sums.lane[channel]);
          if (!g.raw)
            beat.range(8 * lane + 7, 8 * lane) = uint8_t(
                requantised(sums.lane[channel], constant[0][channel], constant[1][channel], constant[2][channel], g.lowest));
        }
        to.write(beat);
        part = part + 1 == beats ? 0 : part + 1;
        TRIP(kRequantise, 1);
      }
    }
  }
}

}  // namespace
}  // namespace accelops
