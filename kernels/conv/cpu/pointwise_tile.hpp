// The packed matrix product under the 1x1 convolution: register tiles and the one packer of both operands.
//
// result[i][j] = sum over k of a(i, k) b(k, j), lanes along j. As in Goto & van de Geijn 2008, a is packed in panels of M
// rows as [k][M], b in panels of two vectors as [k][2 lanes], so that the inner loop reads both in order: per k, M
// broadcasts and two loads feed 2 M multiply-adds. With AVX-512, 14 rows make 28 accumulators of the 32 registers.
#pragma once

#include "conv/cpu/activation.hpp"
#include "conv/cpu/integers.hpp"
#include "vec.hpp"

namespace accelops::ACCELOPS_ISA {

constexpr int tile_rows = Vec::lanes == 16 ? 14 : 6;
constexpr int tile_vectors = 2;
constexpr int tile_columns = tile_vectors * Vec::lanes;

// Where a tile goes: rows `stride` apart, of `columns` each; added to what stands there, or written.
struct Result {
  float* data;
  int64_t stride;
  int columns;
  bool add = false;
};

template <int M, int V>
void product_tile(const float* a, const float* b, int64_t depth, const Result& result) {
  Vec sum[M][V];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sum[m][v] = Vec(0.0f);
  for (int64_t k = 0; k < depth; ++k, a += M, b += tile_columns) {
    Vec column[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) column[v] = Vec::load(b + v * Vec::lanes);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const Vec row(a[m]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[m][v] = fma(row, column[v], sum[m][v]);
    }
  }
  const int last = result.columns - (V - 1) * Vec::lanes;
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    float* const to = result.data + m * result.stride;
    float* const tail = to + (V - 1) * Vec::lanes;
    if (result.add) {
      if (V == 2) sum[m][0] += Vec::load(to);
      sum[m][V - 1] += Vec::load(tail, last);
    }
    if (V == 2) sum[m][0].store(to);
    last == Vec::lanes ? sum[m][V - 1].store(tail) : sum[m][V - 1].store(tail, last);
  }
}

// `rows` of the packed panel a (its width) by the result's columns of the panel b. At most `block` terms are summed in
// sequence, then added up: without that the error of a long sum is up to three times that of oneDNN, which blocks as well.
// It costs one pass over the tile in the L1 cache per block.
template <int M = tile_rows>
void product(int rows, const float* a, const float* b, int64_t depth, int64_t block, Result result) {
  if constexpr (M > 1) {
    if (rows < M) return product<M - 1>(rows, a, b, depth, block, result);
  }
  for (int64_t k = 0; k == 0 || k < depth; k += block, result.add = true) {
    const int64_t here = depth - k < block ? depth - k : block;
    if (result.columns > Vec::lanes)
      product_tile<M, 2>(a + k * M, b + k * tile_columns, here, result);
    else
      product_tile<M, 1>(a + k * M, b + k * tile_columns, here, result);
  }
}

// A matrix to be packed: element (w, k) stands at data[w * w_stride + k * k_stride], w within a panel, k along the sum.
// Where `saved` is given it is a gradient, multiplied by the activation's slope there.
struct Operand {
  const float* data;
  const float* saved;
  Activation activation;
  int64_t w_stride, k_stride;

  Operand at(int64_t w, int64_t k) const {
    const int64_t skip = w * w_stride + k * k_stride;
    return {data + skip, saved ? saved + skip : nullptr, activation, w_stride, k_stride};
  }
  // Always inlined: GCC 12 may take a function that only prefetches for one without effect and drop its calls.
  [[gnu::always_inline]] void prefetch(int64_t offset) const {
    __builtin_prefetch(data + offset);
    if (saved) __builtin_prefetch(saved + offset);
  }
  Vec load(int64_t offset, int lanes) const {
    const Vec x = Vec::load(data + offset, lanes);
    return saved ? x * slope(activation, Vec::load(saved + offset, lanes)) : x;
  }
};

// The panels of one operand: element (w, k) goes to data[w / width * stride + k * width + w % width].
struct Panels {
  float* data;
  int64_t width, stride;
};

// One block of up to lanes x lanes elements, which lies in one panel.
inline void pack_block(const Operand& o, int width, int depth, int64_t panel, float* to) {
  if (o.w_stride == 1) {
    for (int k = 0; k < depth; ++k) o.prefetch((k + Vec::lanes) * o.k_stride);
    if (width == Vec::lanes && !o.saved)
      for (int k = 0; k < depth; ++k) Vec::load(o.data + k * o.k_stride).store(to + k * panel);
    else
      for (int k = 0; k < depth; ++k) o.load(k * o.k_stride, width).store(to + k * panel, width);
  } else if (o.k_stride == 1) {
    Vec block[Vec::lanes];
    for (int i = 0; i < width; ++i) o.prefetch((i + width) * o.w_stride);
#pragma GCC unroll 16
    for (int i = 0; i < Vec::lanes; ++i) block[i] = i < width ? o.load(i * o.w_stride, depth) : Vec(0.0f);
    transpose(block);
    for (int i = 0; i < depth; ++i) block[i].store(to + i * panel, width);
  } else {
    for (int k = 0; k < depth; ++k)
      for (int w = 0; w < width; ++w) to[k * panel + w] = o.load(w * o.w_stride + k * o.k_stride, 1).v[0];
  }
}

// Packs `width` x `depth` elements, the first of which becomes element (first_w, first_k) of the panels. Memory is read in
// strips of up to `lanes` rows, each row in order: those rows are often whole pages apart, and so many streams are what the
// prefetchers follow.
inline void pack(const Operand& o, int64_t width, int64_t depth, const Panels& to, int64_t first_w = 0, int64_t first_k = 0) {
  const auto columns_at = [&](int64_t w) { return least(least(width - w, Vec::lanes), to.width - (first_w + w) % to.width); };
  const auto block = [&](int64_t w, int64_t columns, int64_t k) {
    const int64_t column = (first_w + w) % to.width, panel = (first_w + w) / to.width;
    pack_block(o.at(w, k), static_cast<int>(columns), static_cast<int>(least(depth - k, Vec::lanes)), to.width,
               to.data + panel * to.stride + (first_k + k) * to.width + column);
  };
  if (o.w_stride == 1) {
    for (int64_t k = 0; k < depth; k += Vec::lanes)
      for (int64_t w = 0, columns; columns = columns_at(w), w < width; w += columns) block(w, columns, k);
  } else {
    for (int64_t w = 0, columns; columns = columns_at(w), w < width; w += columns)
      for (int64_t k = 0; k < depth; k += Vec::lanes) block(w, columns, k);
  }
}

}  // namespace accelops::ACCELOPS_ISA
