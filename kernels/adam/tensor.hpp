// A torch tensor that Python owns, seen through torch's stable C functions.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "torch_abi.hpp"

namespace accelops {

// Shape and strides of a tensor that lives on.
struct Layout {
  int64_t dim;
  const int64_t *sizes, *strides;

  bool same_shape(const Layout& other) const {
    return dim == other.dim && std::memcmp(sizes, other.sizes, dim * sizeof(int64_t)) == 0;
  }
  // Of two of the same shape: do equal offsets hold equal elements?
  bool same_order(const Layout& other) const {
    for (int64_t d = 0; d < dim; ++d)
      if (sizes[d] > 1 && strides[d] != other.strides[d]) return false;
    return true;
  }
  // Does every address from the first element to the last hold exactly one element?
  bool dense(int64_t numel) const {
    for (int64_t expected = 1; expected < numel;) {
      int64_t d = 0;
      while (d < dim && (sizes[d] <= 1 || strides[d] != expected)) ++d;
      if (d == dim) return false;
      expected *= sizes[d];
    }
    return true;
  }
};

class Tensor {
 public:
  // `impl` is Tensor._cdata. A handle points to an at::Tensor, which is one pointer to the implementation.
  explicit Tensor(uintptr_t impl) : impl_(reinterpret_cast<void*>(impl)) {}

  void* data() { return get(torch_abi::aoti_torch_get_data_ptr); }
  int64_t numel() { return get(torch_abi::aoti_torch_get_numel); }
  Layout layout() {
    return {get(torch_abi::aoti_torch_get_dim), get(torch_abi::aoti_torch_get_sizes), get(torch_abi::aoti_torch_get_strides)};
  }
  int32_t dtype() { return get(torch_abi::aoti_torch_get_dtype); }  // c10/core/ScalarType.h
  bool strided() { return get(torch_abi::aoti_torch_get_layout) == 0; }
  int32_t device_type() { return get(torch_abi::aoti_torch_get_device_type); }  // c10/core/DeviceType.h; 0 is the CPU
  int32_t device_index() { return get(torch_abi::aoti_torch_get_device_index); }

  // torch 2.9 has what is needed here, though not all of torch_abi.
  static bool readable() {
    using namespace torch_abi;
    load();
    return aoti_torch_get_data_ptr && aoti_torch_get_numel && aoti_torch_get_dim && aoti_torch_get_sizes && aoti_torch_get_strides &&
           aoti_torch_get_dtype && aoti_torch_get_device_type && aoti_torch_get_device_index && aoti_torch_get_layout;
  }

 private:
  template <class T>
  T get(torch_abi::Error (*function)(torch_abi::Handle, T*)) {
    T value{};
    if (function(reinterpret_cast<torch_abi::Handle>(&impl_), &value) != 0)
      throw std::runtime_error("accelops: torch could not describe a tensor");
    return value;
  }

  void* impl_;
};

}  // namespace accelops
