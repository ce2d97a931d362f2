// What dispatch has decided for a convolution: from a Key (sizes, strides, dtypes, parameters) to a Decision (torch's own
// kernel, or native plans), shared by all threads.
#pragma once

#include <array>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "boxed.hpp"
#include "conv/problem.hpp"

namespace accelops {

using boxed::Ints;
using boxed::Parameters;
using boxed::Tensor;

// Everything that a decision may depend on, as one row of integers.
class Key {
 public:
  static constexpr int kMost = 96;

  void add(int64_t v) {
    if (size_ < kMost) value_[size_] = v;
    ++size_;
  }
  void add(const Ints& list) {
    add(list.size);
    for (int i = 0; i < list.size; ++i) add(list.value[i]);
  }
  void add(const Parameters& p) {
    add(p.stride), add(p.padding), add(p.dilation), add(p.output_padding);
    add(p.transposed), add(p.groups);
  }
  void add(const Tensor& t) {
    int64_t dim, *sizes, *strides;
    int32_t dtype;
    torch_abi::check(torch_abi::aoti_torch_get_dim(t.handle, &dim), "get_dim");
    torch_abi::check(torch_abi::aoti_torch_get_sizes(t.handle, &sizes), "get_sizes");
    torch_abi::check(torch_abi::aoti_torch_get_strides(t.handle, &strides), "get_strides");
    torch_abi::check(torch_abi::aoti_torch_get_dtype(t.handle, &dtype), "get_dtype");
    add(dtype), add(dim);
    for (int64_t i = 0; i < dim; ++i) add(sizes[i]), add(strides[i]);
  }
  // A row that did not fit is never remembered: such a call takes the long way each time.
  bool fits() const { return size_ <= kMost; }
  bool operator==(const Key& o) const { return size_ == o.size_ && std::memcmp(value_, o.value_, size_ * sizeof *value_) == 0; }
  size_t hash() const {
    uint64_t h = 14695981039346656037ull;  // FNV-1a over words, with a final mix
    for (int i = 0; i < size_; ++i) h = (h ^ static_cast<uint64_t>(value_[i])) * 1099511628211ull;
    return h ^ (h >> 29);
  }

 private:
  int64_t value_[kMost];
  int size_ = 0;
};
struct KeyHash {
  size_t operator()(const Key& k) const { return k.hash(); }
};

// A native plan and the result that it fills.
struct Step {
  ConvPlan plan;
  std::vector<int64_t> sizes, strides;
};

// What to run for a key. In a forward only `first` matters; in a backward it is dgrad and `second` wgrad. What has no
// step comes from torch's kernel. `copy` says which tensors (in the order of the call) must first be brought into
// `memory_format`, for the steps.
struct Decision {
  std::optional<Step> first, second;
  std::array<bool, 3> copy{};
  int64_t memory_format = 0;

  void prepare(Tensor* const (&tensors)[3]) const {
    for (int i = 0; i < 3; ++i)
      if (copy[i]) tensors[i]->make_contiguous(memory_format);
  }
};

class Table {
 public:
  // Decisions are never deleted before `clear`, and `clear` keeps them alive for calls under way.
  std::shared_ptr<const Decision> find(const Key& key) const {
    std::shared_lock<std::shared_mutex> lock(mutex_);
    const auto found = decisions_.find(key);
    return found == decisions_.end() ? nullptr : found->second;
  }
  void put(const Key& key, Decision decision) {
    std::unique_lock<std::shared_mutex> lock(mutex_);
    if (decisions_.size() >= kMost) decisions_.clear();
    decisions_[key] = std::make_shared<const Decision>(std::move(decision));
  }
  void clear() {
    std::unique_lock<std::shared_mutex> lock(mutex_);
    decisions_.clear();
  }
  size_t size() const {
    std::shared_lock<std::shared_mutex> lock(mutex_);
    return decisions_.size();
  }

 private:
  static constexpr size_t kMost = 65536;  // a program with ever new shapes must not grow without bound
  mutable std::shared_mutex mutex_;
  std::unordered_map<Key, std::shared_ptr<const Decision>, KeyHash> decisions_;
};

}  // namespace accelops
