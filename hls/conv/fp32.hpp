// The fp32 convolution's top function, as the host calls it: hls/conv/kernel_fp32.json names its arguments, in this order.
//
// y[n,k,p,q] = sum over c,r,s of x[n,c,p*stride_h+r*dilation_h-padding_h,q*stride_w+s*dilation_w-padding_w] * w[k,c,r,s],
// then + bias[k] with kBias, then max(0, .) with kRelu. The order of the sum is fixed: a word of kInputs products by halves
// (i and i + kInputs / 2, and so on), words added one after the other, r and s within c. Operands lie as tiles.hpp says, in
// fp32; bias is K blocks, kBlock. Gradients with respect to x are convolutions too, with the weights flipped by the host.
#pragma once

#include "beat.hpp"

namespace accelops {

constexpr uint32_t kBias = 1, kRelu = 2;  // flags of a call

typedef float Element;
typedef float Sum;
constexpr int kBlock = kConvFp32Outputs, kInputs = kConvFp32Inputs;
constexpr int kLanes = 1, kMostLanes = 1;
constexpr int kTilePixels = kConvFp32TilePixels, kInputWords = kConvFp32InputWords;

inline Element element_of(uint32_t bits) { return float_of(bits); }

}  // namespace accelops

extern "C" void conv_fp32(const accelops::Beat* x, const accelops::Beat* w, const accelops::Beat* bias, accelops::Beat* y,
                          uint32_t N, uint32_t H, uint32_t W, uint32_t C, uint32_t K, uint32_t R, uint32_t S, uint32_t P,
                          uint32_t Q, uint32_t stride_h, uint32_t stride_w, uint32_t padding_h, uint32_t padding_w,
                          uint32_t dilation_h, uint32_t dilation_w, uint32_t tile_n, uint32_t tile_p, uint32_t tile_q,
                          uint32_t C_total, uint32_t K_total, uint32_t flags, uint64_t* identity);
