// One bucketing problem as the C++ kernels see it: tensors of any strides on one side, one flat wire buffer on the other.
// Tensors lie in the buffer one after the other, without gaps, as in DDP's buckets: a tensor that is dense in memory in
// its memory order, so that it moves as one run, any other in logical order (kernels/bucket/layout.hpp works that out).
#pragma once

#include <cstdint>

#include "number.hpp"

namespace accelops {

// One tensor: its place in the buffer, in elements, and how to walk it in the buffer's order, the last dimension fastest.
struct BucketTensor {
  DType dtype;
  int64_t begin, numel;
  bool contiguous;  // one run: dims and strides need not be looked at
  int dims;
  const int64_t* sizes;
  const int64_t* strides;
};

// Where element `index` (in the buffer's order) of a tensor lies, in elements from its first.
static inline int64_t offset_of(const BucketTensor& t, int64_t index) {
  if (t.contiguous) return index;
  int64_t offset = 0;
  for (int d = t.dims - 1; d >= 0; --d) {
    offset += index % t.sizes[d] * t.strides[d];
    index /= t.sizes[d];
  }
  return offset;
}

// pack: flat[i] = cast(scale * x[i]), or with a residual r: y = scale * x[i] + r[i], flat[i] = cast(y), r[i] = y - flat[i]
//       (0 where flat[i] is not finite: an overflow is seen once and does not poison the steps that follow).
// unpack: x[i] = cast(scale * flat[i]).
struct BucketMove {
  const BucketTensor* tensors;
  void* const* data;  // of each tensor
  int64_t count, numel;
  DType wire;
  void* flat;
  float* residual;  // null for none
  double scale;
  bool stream;  // write past the caches
};

// out[i] = cast(scale * (flats[0][i] + flats[1][i] + ...)), added in this order, rounded to dtype once.
struct BucketReduce {
  const void* const* flats;
  int64_t ranks, numel;
  DType wire, dtype;
  void* out;
  double scale;
  bool stream;
};

}  // namespace accelops
