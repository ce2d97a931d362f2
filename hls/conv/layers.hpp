// The layers that the testbenches of the convolutions try, and their reference's walk over a layer's inputs.
#pragma once

#include "tiles.hpp"

namespace accelops {

// `rows` and `columns` of the output that are made; 0: as many as the padding, the same on both sides, gives.
struct Layer {
  uint32_t N, H, W, C, K, R, S, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, tile_n, tile_p, tile_q;
  uint32_t rows = 0, columns = 0;

  uint32_t P() const { return rows ? rows : (H + 2 * padding_h - dilation_h * (R - 1) - 1) / stride_h + 1; }
  uint32_t Q() const { return columns ? columns : (W + 2 * padding_w - dilation_w * (S - 1) - 1) / stride_w + 1; }
};

const Layer kLayers[] = {
    {0, 4, 4, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1, 4, 4},  // no images
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1},  // one pixel
    {2, 5, 7, 1, 2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 3, 4},  // tiles that do not divide
    {3, 4, 3, 2, 1, 1, 1, 1, 1, 0, 0, 1, 1, 2, 4, 3},  // several images in a tile
    {1, 9, 8, 1, 1, 3, 3, 2, 2, 1, 1, 1, 1, 1, 2, 3},
    {2, 8, 7, 2, 1, 1, 1, 2, 3, 0, 0, 1, 1, 2, 4, 3},  // a kernel of one tap skips rows and columns
    {1, 7, 6, 1, 2, 1, 1, 3, 2, 2, 1, 1, 1, 1, 2, 3},  // and padding between them
    {1, 5, 9, 1, 1, 1, 3, 2, 2, 0, 1, 1, 1, 1, 3, 2},
    {1, 8, 9, 2, 2, 5, 3, 2, 1, 4, 0, 1, 2, 1, 4, 4},
    {1, 6, 6, 1, 1, 3, 3, 3, 2, 3, 3, 1, 1, 1, 3, 2},  // rows and columns of padding alone
    {2, 5, 4, 1, 1, 2, 2, 1, 1, 0, 0, 1, 1, 1, 2, 4, 4, 4},  // a phase of a strided layer's gradient: beyond the last column
    {1, 3, 4, 1, 2, 2, 3, 1, 1, 0, 2, 1, 1, 1, 3, 7, 3, 7},  // and one far beyond it
    {5, 9, 7, 2, 1, 4, 3, 1, 1, 0, 0, 2, 2, 2, 3, 3},        // its weights' gradient: bands of 4 x 3 are the kernel
    {3, 6, 7, 1, 1, 2, 3, 2, 1, 0, 0, 1, 1, 3, 3, 5},        // and that of a dilated one
};

// Where element (n, c, h, w) of x lies, and (k, c, r, s) of the weights, (n, k, p, q) of y.
inline size_t x_at(const Layer& l, uint32_t n, uint32_t c, uint32_t h, uint32_t w) {
  return (((size_t(n) * l.C * kBlocks + c / kBlock) * l.H + h) * l.W + w) * kBlock + c % kBlock;
}
inline size_t w_at(const Layer& l, uint32_t k, uint32_t c, uint32_t r, uint32_t s) {
  const size_t set = ((size_t(k / kBlock) * l.C + c / kInputs) * l.R + r) * l.S + s;
  return (set * kBlock + k % kBlock) * kInputs + c % kInputs;
}
inline size_t y_at(const Layer& l, uint32_t n, uint32_t k, uint32_t p, uint32_t q) {
  return (((size_t(n) * l.K + k / kBlock) * l.P() + p) * l.Q() + q) * kBlock + k % kBlock;
}

// Row p * stride + r * dilation - padding of the input; false where it is beyond the image.
inline bool input_at(uint32_t p, uint32_t r, uint32_t stride, uint32_t dilation, uint32_t padding, uint32_t extent,
                     uint32_t& h) {
  h = p * stride + r * dilation - padding;  // below zero it wraps to a number beyond any extent
  return h < extent;
}

}  // namespace accelops
