// What the stages of the int8 convolution pass to each other: the geometry of the launch, tiles, blocks of channels, sums.
#pragma once

#include <hls_stream.h>

#include "int8.hpp"

namespace accelops {
namespace {

typedef ap_uint<8 * kBlock> Block;

struct Geometry {
  uint32_t N, H, W, C, K, R, S, P, Q, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
  uint32_t tile_n, tile_p, tile_q;
  bool raw;
  int32_t lowest;

  uint32_t taps() const { return C * R * S; }
};

// Outputs [n, n + ns) x [p, p + ps) x [q, q + qs), and the size of their inputs' patch.
struct Tile {
  uint32_t n, p, q, ns, ps, qs, rows, columns;

  uint32_t pixels() const { return ns * ps * qs; }
};

struct Sums {
  int32_t lane[kBlock];
};

typedef hls::stream<Tile> Tiles;
typedef hls::stream<Beat> Beats;
typedef hls::stream<Block> Blocks;
typedef hls::stream<Sums> SumBlocks;

inline uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

}  // namespace
}  // namespace accelops
