// The arguments of a boxed kernel as torch's stable ABI passes them: 64-bit values that own what they point to. The callee of
// a boxed kernel frees its arguments, and so does torch with those that are handed to it.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "torch_abi.hpp"

namespace accelops::boxed {

namespace abi = torch_abi;
using abi::Handle;
using abi::Value;

struct Tensor {
  Handle handle = nullptr;
  Tensor() = default;
  explicit Tensor(Value v) : handle(reinterpret_cast<Handle>(v)) {}
  Tensor(const Tensor&) = delete;
  Tensor(Tensor&& other) noexcept : handle(other.handle) { other.handle = nullptr; }
  Tensor& operator=(Tensor&& other) noexcept { return std::swap(handle, other.handle), *this; }
  ~Tensor() {
    if (handle) abi::aoti_torch_delete_tensor_object(handle);
  }
  bool defined() const {
    bool yes = false;
    if (handle) abi::aoti_torch_is_defined(handle, &yes);
    return yes;
  }
  bool has_elements() const {
    int64_t numel = 0;
    abi::check(abi::aoti_torch_get_numel(handle, &numel), "get_numel");
    return numel > 0;
  }
  void* data() const {
    void* p = nullptr;
    abi::check(abi::aoti_torch_get_data_ptr(handle, &p), "get_data_ptr");
    return p;
  }
  Value release() {
    const Value v = reinterpret_cast<Value>(handle);
    handle = nullptr;
    return v;
  }
  // Brings the tensor into a memory format (an at::MemoryFormat), as torch does before its own kernels.
  void make_contiguous(int64_t memory_format) {
    Value call[2] = {release(), static_cast<Value>(memory_format)};
    abi::check(abi::torch_call_dispatcher("aten::contiguous", "", call, abi::kVersion), "contiguous");
    handle = reinterpret_cast<Handle>(call[0]);
  }
  // Another reference to the same tensor, for a callee that will free it.
  Value share() const {
    Handle copy = nullptr;
    abi::check(abi::aoti_torch_new_tensor_handle(handle, &copy), "new_tensor_handle");
    return reinterpret_cast<Value>(copy);
  }
};

// An optional argument is a pointer to its value on the heap, or null.
std::optional<Value> take_optional(Value v) {
  auto* p = reinterpret_cast<Value*>(v);
  if (!p) return std::nullopt;
  const Value value = *p;
  delete p;
  return value;
}

struct Ints {
  static constexpr int kMost = 8;
  int64_t value[kMost];
  int size = 0;

  Ints() = default;
  explicit Ints(Value v) {
    const auto list = reinterpret_cast<abi::List>(v);
    size_t n = 0;
    abi::check(abi::torch_list_size(list, &n), "list_size");
    if (n > kMost) {
      abi::torch_delete_list(list);
      throw std::runtime_error("convolution: a list argument has " + std::to_string(n) + " entries, expected at most 3");
    }
    for (size_t i = 0; i < n; ++i) {
      Value item;
      abi::check(abi::torch_list_get_item(list, i, &item), "list_get_item");
      value[i] = static_cast<int64_t>(item);
    }
    size = static_cast<int>(n);
    abi::torch_delete_list(list);
  }
  Value list() const {
    abi::List list = nullptr;
    abi::check(abi::torch_new_list_reserve_size(size, &list), "new_list");
    for (int i = 0; i < size; ++i) abi::check(abi::torch_list_push_back(list, static_cast<Value>(value[i])), "list_push_back");
    return reinterpret_cast<Value>(list);
  }
};

struct Parameters {
  Ints stride, padding, dilation, output_padding;
  bool transposed;
  int64_t groups;

  // From the six entries of the stack that both ops share.
  explicit Parameters(const Value* s)
      : stride(s[0]), padding(s[1]), dilation(s[2]), output_padding(s[4]), transposed(s[3] & 1), groups(static_cast<int64_t>(s[5])) {}
  void push(Value* s) const {
    s[0] = stride.list(), s[1] = padding.list(), s[2] = dilation.list();
    s[3] = transposed, s[4] = output_padding.list(), s[5] = static_cast<Value>(groups);
  }
};

}  // namespace accelops::boxed
