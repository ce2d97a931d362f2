// The layout of one list of tensors in a flat buffer, made once per list of shapes, strides and dtypes and kept: the
// addresses, which may change from step to step, come with each call.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bucket/problem.hpp"

namespace accelops {

class BucketLayout {
 public:
  using Extents = std::vector<std::vector<int64_t>>;
  using Addresses = std::vector<uintptr_t>;

  BucketLayout(const Extents& sizes, const Extents& strides, const std::vector<DType>& dtypes);
  BucketLayout(const BucketLayout&) = delete;

  const std::vector<BucketTensor>& tensors() const { return tensors_; }
  int64_t numel() const { return numel_; }

  // Two tensors of the list that share an element (the same one twice: two of its own), or {-1, -1}. Exact: views that
  // interleave, such as the even and the odd columns, are told from views that overlap.
  std::pair<int, int> overlap(const Addresses&) const;

  // The first tensor that shares memory with the `bytes` at `flat` otherwise than by being its own place there, as DDP's
  // gradients may be (gradient_as_bucket_view); or -1.
  int entangled(const Addresses&, uintptr_t flat, int64_t bytes, DType wire) const;

 private:
  struct Range {
    uintptr_t begin, end;
    int owner;
  };

  Range range(int tensor, uintptr_t address) const;
  void append_runs(int tensor, uintptr_t address, std::vector<Range>&) const;

  std::vector<BucketTensor> tensors_;
  Extents sizes_, strides_;  // what the tensors point to
  int64_t numel_ = 0;
};

}  // namespace accelops
