// A torch tensor seen from C++ without torch's headers: its handle for torch's stable C functions
// (torch/csrc/inductor/aoti_torch/c/shim.h), which are found by name in the library that `import torch` has loaded.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <type_traits>

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

  void* data() { return get(functions().data_ptr); }
  int64_t numel() { return get(functions().numel); }
  Layout layout() { return {get(functions().dim), get(functions().sizes), get(functions().strides)}; }
  int32_t dtype() { return get(functions().dtype); }  // c10/core/ScalarType.h
  bool plain() { return get(functions().device_type) == 0 && get(functions().layout) == 0; }  // strided, on the CPU

  static bool readable() { return functions().complete(); }

 private:
  template <class T>
  using Getter = int32_t (*)(void* handle, T*);
  struct Functions {
    Getter<void*> data_ptr;
    Getter<int64_t> numel, dim;
    Getter<int64_t*> sizes, strides;
    Getter<int32_t> dtype, device_type, layout;
    bool complete() const { return data_ptr && numel && dim && sizes && strides && dtype && device_type && layout; }
  };

  static const Functions& functions() {
    static const Functions found = [] {
      void* const torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
      Functions f{};
      const auto find = [&](const char* name, auto& function) {
        if (torch) function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(torch, name));
      };
      find("aoti_torch_get_data_ptr", f.data_ptr), find("aoti_torch_get_numel", f.numel), find("aoti_torch_get_dim", f.dim);
      find("aoti_torch_get_sizes", f.sizes), find("aoti_torch_get_strides", f.strides);
      find("aoti_torch_get_dtype", f.dtype), find("aoti_torch_get_device_type", f.device_type);
      find("aoti_torch_get_layout", f.layout);
      return f;
    }();
    return found;
  }

  template <class T>
  T get(Getter<T> function) {
    T value{};
    if (function(&impl_, &value) != 0) throw std::runtime_error("accelops: torch could not describe a tensor");
    return value;
  }

  void* impl_;
};

}  // namespace accelops
