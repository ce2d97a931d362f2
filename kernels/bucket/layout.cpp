#include "bucket/layout.hpp"

#include <algorithm>
#include <numeric>

namespace accelops {
namespace {

using Dims = std::vector<int64_t>;

// Whether, in the given order, every dimension steps over all that the faster ones span; `dense`: exactly over it.
bool nested(const Dims& sizes, const Dims& strides, bool dense) {
  int64_t span = 1;
  for (int d = static_cast<int>(sizes.size()) - 1; d >= 0; --d) {
    if (dense ? strides[d] != span : strides[d] < span) return false;
    span = dense ? span * sizes[d] : span + (sizes[d] - 1) * strides[d];
  }
  return true;
}

void sort_by_stride(Dims& sizes, Dims& strides) {
  std::vector<size_t> order(sizes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return strides[a] > strides[b]; });
  const Dims old_sizes = sizes, old_strides = strides;
  for (size_t d = 0; d < order.size(); ++d) sizes[d] = old_sizes[order[d]], strides[d] = old_strides[order[d]];
}

void drop_ones(Dims& sizes, Dims& strides) {
  size_t kept = 0;
  for (size_t d = 0; d < sizes.size(); ++d)
    if (sizes[d] != 1) sizes[kept] = sizes[d], strides[kept++] = strides[d];
  sizes.resize(kept), strides.resize(kept);
}

// Joins neighbouring dimensions that are walked as one, so that the innermost run is as long as it can be.
void join(Dims& sizes, Dims& strides) {
  size_t last = 0;
  for (size_t d = 1; d < sizes.size(); ++d) {
    if (strides[last] == sizes[d] * strides[d])
      sizes[last] *= sizes[d], strides[last] = strides[d];
    else
      sizes[++last] = sizes[d], strides[last] = strides[d];
  }
  if (!sizes.empty()) sizes.resize(last + 1), strides.resize(last + 1);
}

}  // namespace

BucketLayout::BucketLayout(const Extents& sizes, const Extents& strides, const std::vector<DType>& dtypes)
    : sizes_(sizes), strides_(strides) {
  for (size_t k = 0; k < dtypes.size(); ++k) {
    Dims &size = sizes_[k], &stride = strides_[k];
    drop_ones(size, stride);
    Dims sorted_size = size, sorted_stride = stride;
    sort_by_stride(sorted_size, sorted_stride);
    const bool dense = nested(sorted_size, sorted_stride, true);
    if (!dense) join(size, stride);
    int64_t numel = 1;
    for (int64_t s : size) numel *= s;
    tensors_.push_back({dtypes[k], numel_, numel, dense || numel == 0, static_cast<int>(size.size()), size.data(), stride.data()});
    numel_ += numel;
  }
}

BucketLayout::Range BucketLayout::range(int tensor, uintptr_t address) const {
  const BucketTensor& t = tensors_[tensor];
  int64_t last = t.numel - 1;
  if (!t.contiguous) {
    last = 0;
    for (int d = 0; d < t.dims; ++d) last += (t.sizes[d] - 1) * t.strides[d];
  }
  return {address, address + (last + 1) * size_of(t.dtype), tensor};
}

// Every stretch of memory that the tensor covers.
void BucketLayout::append_runs(int tensor, uintptr_t address, std::vector<Range>& runs) const {
  const BucketTensor& t = tensors_[tensor];
  const bool rows = !t.contiguous && t.strides[t.dims - 1] == 1;
  const int64_t length = t.contiguous ? t.numel : rows ? t.sizes[t.dims - 1] : 1;
  for (int64_t i = 0; i < t.numel; i += length) {
    const uintptr_t begin = address + offset_of(t, i) * size_of(t.dtype);
    runs.push_back({begin, begin + length * size_of(t.dtype), tensor});
  }
}

std::pair<int, int> BucketLayout::overlap(const Addresses& addresses) const {
  const auto by_begin = [](const Range& a, const Range& b) { return a.begin < b.begin; };
  std::vector<Range> ranges, runs;
  for (size_t k = 0; k < tensors_.size(); ++k)
    if (tensors_[k].numel > 0) ranges.push_back(range(static_cast<int>(k), addresses[k]));
  std::sort(ranges.begin(), ranges.end(), by_begin);
  for (size_t first = 0, next; first < ranges.size(); first = next) {
    uintptr_t end = ranges[first].end;
    for (next = first + 1; next < ranges.size() && ranges[next].begin < end; ++next) end = std::max(end, ranges[next].end);
    const BucketTensor& t = tensors_[ranges[first].owner];
    if (next == first + 1) {
      if (t.contiguous) continue;
      Dims size(t.sizes, t.sizes + t.dims), stride(t.strides, t.strides + t.dims);
      sort_by_stride(size, stride);
      if (nested(size, stride, false)) continue;
    }
    runs.clear();
    for (size_t k = first; k < next; ++k) append_runs(ranges[k].owner, addresses[ranges[k].owner], runs);
    std::sort(runs.begin(), runs.end(), by_begin);
    for (size_t k = 1; k < runs.size(); ++k)
      if (runs[k].begin < runs[k - 1].end) return std::minmax(int(runs[k - 1].owner), int(runs[k].owner));
  }
  return {-1, -1};
}

int BucketLayout::entangled(const Addresses& addresses, uintptr_t flat, int64_t bytes, DType wire) const {
  for (size_t k = 0; k < tensors_.size(); ++k) {
    const BucketTensor& t = tensors_[k];
    if (t.numel == 0) continue;
    const Range r = range(static_cast<int>(k), addresses[k]);
    const bool own_place = t.contiguous && t.dtype == wire && addresses[k] == flat + t.begin * size_of(wire);
    if (!own_place && r.begin < flat + bytes && flat < r.end) return static_cast<int>(k);
  }
  return -1;
}

}  // namespace accelops
