// The int8 convolution's top function, as the host calls it: hls/conv/kernel_int8.json names its arguments, in this order.
//
// y[n,k,p,q] = sum over c,r,s of x[n,c,p*stride_h+r*dilation_h-padding_h,q*stride_w+s*dilation_w-padding_w] * w[k,c,r,s],
// exact in int32; then raw, or requantised per channel: saturate(((sum + bias) * multiplier + half) >> (31 + shift)), half
// being 2^(30 + shift), rounded half up, into [lowest, 127] (lowest = 0 is a ReLU).
//
// Operands lie as tiles.hpp says, x and w in int8; scale is K blocks, 3 (bias, multiplier, shift), kBlock, in int32; y is int8,
// or int32 where raw. x1 and y1 are the addresses of x and y again, through another port; boards with one lane leave them alone.
#pragma once

#include "beat.hpp"

namespace accelops {

constexpr uint32_t kRaw = 1;  // flag of a call: y is the int32 sums

typedef int8_t Element;
typedef int32_t Sum;
constexpr int kBlock = kConvInt8Outputs, kInputs = kConvInt8Inputs;
constexpr int kTilePixels = kConvInt8TilePixels, kInputWords = kConvInt8InputWords;
constexpr int kLanes = kConvInt8Ports, kMostLanes = 2;
constexpr int kScaleBeats = 32 * kBlock / kPortBits;

inline Element element_of(uint32_t bits) { return Element(bits); }

}  // namespace accelops

extern "C" void conv_int8(const accelops::Beat* x, const accelops::Beat* w, const accelops::Beat* scale, accelops::Beat* y,
                          const accelops::Beat* x1, accelops::Beat* y1, uint32_t N, uint32_t H, uint32_t W, uint32_t C,
                          uint32_t K, uint32_t R, uint32_t S, uint32_t P, uint32_t Q, uint32_t stride_h, uint32_t stride_w,
                          uint32_t padding_h, uint32_t padding_w, uint32_t dilation_h, uint32_t dilation_w, uint32_t tile_n,
                          uint32_t tile_p, uint32_t tile_q, uint32_t C_total, uint32_t K_total, uint32_t flags,
                          int32_t lowest, uint64_t* identity);
