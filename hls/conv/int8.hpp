// The int8 convolution's top function, as the host calls it: hls/conv/kernel.json names its arguments, in this order.
//
// y[n,k,p,q] = sum over c,r,s of x[n,c,p*stride_h+r*dilation_h-padding_h,q*stride_w+s*dilation_w-padding_w] * w[k,c,r,s],
// exact in int32; then raw, or requantised per channel: saturate(((sum + bias) * multiplier + half) >> (31 + shift)), half
// being 2^(30 + shift), rounded half up, into [lowest, 127] (lowest = 0 is a ReLU).
//
// Channels come in blocks of kBlock (a board's conv_int8.outputs), padded with zeros to whole words of kInputs:
//   x      N, channel blocks, H, W, kBlock                 int8
//   w      K blocks, C words, R, S, kBlock, kInputs        int8
//   scale  K blocks, 3 (bias, multiplier, shift), kBlock   int32
//   y      N, K blocks, P, Q, kBlock                       int8, or int32 where raw
// C counts words of input channels, K blocks of output channels. Outputs are made in tiles of tile_n images, tile_p rows,
// tile_q columns: at most kConvInt8TilePixels pixels, whose inputs take at most kConvInt8InputWords words.
#pragma once

#include "beat.hpp"

namespace accelops {

constexpr uint32_t kRaw = 1;  // flag of a call: y is the int32 sums

constexpr int kBlock = kConvInt8Outputs, kInputs = kConvInt8Inputs;
constexpr int kBlocks = kInputs / kBlock;             // of a word of input channels
constexpr int kBlockBeats = 8 * kBlock / kPortBits;   // of int8
constexpr int kScaleBeats = 32 * kBlock / kPortBits;  // of int32
static_assert(kInputs % kBlock == 0 && 8 * kBlock % kPortBits == 0, "blocks are whole beats, words whole blocks");

enum ConvStage { kSchedule, kLoadX, kLoadW, kFill, kMultiply, kRequantise, kStore };

}  // namespace accelops

extern "C" void conv_int8(const accelops::Beat* x, const accelops::Beat* w, const accelops::Beat* scale, accelops::Beat* y,
                          uint32_t N, uint32_t H, uint32_t W, uint32_t C, uint32_t K, uint32_t R, uint32_t S, uint32_t P,
                          uint32_t Q, uint32_t stride_h, uint32_t stride_w, uint32_t padding_h, uint32_t padding_w,
                          uint32_t dilation_h, uint32_t dilation_w, uint32_t tile_n, uint32_t tile_p, uint32_t tile_q,
                          uint32_t flags, int32_t lowest, uint64_t* identity);
