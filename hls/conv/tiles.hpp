// What the stages of a convolution pass to each other: the geometry of the launch, tiles, blocks of channels, sums.
//
// An engine is an element type and an array of multipliers. Its header (int8.hpp, fp32.hpp), included before this one, says
// Element, Sum, kBlock, kInputs, kTilePixels, kInputWords, kLanes and kMostLanes, and with them how operands lie:
//   x      N, channel blocks, H, W, kBlock
//   w      K blocks, C words, R, S, kBlock, kInputs
//   y      N, K blocks, P, Q, kBlock
// Channels come in blocks of kBlock, padded with zeros to whole words of kInputs: C counts words of input channels, K blocks
// of output channels. A launch may work on some of the channels of a tensor, as one group does: C_total words and K_total
// blocks are all that an image has, x and y the addresses of the launch's first. Outputs are made in tiles of tile_n images,
// tile_p rows, tile_q columns: at most kTilePixels pixels, whose inputs take at most kInputWords words.
//
// x and y have kLanes ports each, and a stage for each: lane i reads the blocks i, i + kLanes, and so on, of the inputs'
// channels, and writes those of the outputs'. Stage s of lane i counts its trips at s * kMostLanes + i.
#pragma once

#include <hls_stream.h>

#include "beat.hpp"

namespace accelops {
namespace {

constexpr int kElementBits = 8 * sizeof(Element);
constexpr int kElements = kPortBits / kElementBits;            // of a beat
constexpr int kBlocks = kInputs / kBlock;                      // of a word of input channels
constexpr int kBlockBeats = kElementBits * kBlock / kPortBits;
static_assert(kBlocks % kLanes == 0, "each lane reads as many blocks of a word");
static_assert(kInputs % kBlock == 0 && kBlock % kElements == 0, "blocks are whole beats, words whole blocks");

enum ConvStage { kSchedule, kLoadX, kLoadW, kLoadConstants, kFill, kMultiply, kFinish, kStore };

typedef ap_uint<kElementBits * kBlock> Block;

struct Geometry {
  uint32_t N, H, W, C, K, R, S, P, Q, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
  uint32_t tile_n, tile_p, tile_q, C_total, K_total;
  uint32_t flags;
  int32_t lowest;

  uint32_t taps() const { return C * R * S; }

  // A kernel of one row looks at no others than outputs stand on, so the patch holds these alone: how many rows of the image
  // lie between two of the patch, and how many of the patch between two outputs. So for columns.
  uint32_t skip_h() const { return R == 1 ? stride_h : 1; }
  uint32_t skip_w() const { return S == 1 ? stride_w : 1; }
  uint32_t step_h() const { return R == 1 ? 1 : stride_h; }
  uint32_t step_w() const { return S == 1 ? 1 : stride_w; }
};

// Outputs [n, n + ns) x [p, p + ps) x [q, q + qs), and the size of their inputs' patch.
struct Tile {
  uint32_t n, p, q, ns, ps, qs, rows, columns;

  uint32_t pixels() const { return ns * ps * qs; }
};

struct Sums {
  Sum lane[kBlock];
};

typedef hls::stream<Tile> Tiles;
typedef hls::stream<Beat> Beats;
typedef hls::stream<Block> Blocks;
typedef hls::stream<Sums> SumBlocks;

inline uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

}  // namespace
}  // namespace accelops
