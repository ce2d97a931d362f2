// torch's stable C functions (torch/csrc/stable/c/shim.h, torch/csrc/inductor/aoti_torch/c/shim.h), found by name in the
// library that `import torch` has loaded: no torch headers, no link to torch, one build for every torch since 2.10.
#pragma once

#include <cstdint>
#include <string>

namespace accelops::torch_abi {

using Handle = struct TensorOpaque*;
using List = struct ListOpaque*;
using Library = struct LibraryOpaque*;
using Value = uint64_t;  // an argument of a boxed kernel: a handle, an integer, a pointer to an optional's value
using Error = int32_t;
using BoxedKernel = void (*)(Value* stack, uint64_t inputs, uint64_t outputs);

// The version whose layout of Value we follow, as torch encodes it: major << 56 | minor << 48.
constexpr uint64_t kVersion = (2ull << 56) | (10ull << 48);

#define ACCELOPS_TORCH_FUNCTIONS(X)                                                            \
  X(aoti_torch_library_init_impl, (const char*, const char*, const char*, uint32_t, Library*)) \
  X(torch_library_impl, (Library, const char*, BoxedKernel, uint64_t))                         \
  X(torch_call_dispatcher, (const char*, const char*, Value*, uint64_t))                       \
  X(torch_list_size, (List, size_t*))                                                          \
  X(torch_list_get_item, (List, size_t, Value*))                                               \
  X(torch_new_list_reserve_size, (size_t, List*))                                              \
  X(torch_list_push_back, (List, Value))                                                       \
  X(torch_delete_list, (List))                                                                 \
  X(torch_get_num_threads, (uint32_t*))                                                        \
  X(aoti_torch_delete_tensor_object, (Handle))                                                 \
  X(aoti_torch_new_tensor_handle, (Handle, Handle*))                                           \
  X(aoti_torch_new_uninitialized_tensor, (Handle*))                                            \
  X(aoti_torch_is_defined, (Handle, bool*))                                                    \
  X(aoti_torch_get_data_ptr, (Handle, void**))                                                 \
  X(aoti_torch_get_dim, (Handle, int64_t*))                                                    \
  X(aoti_torch_get_sizes, (Handle, int64_t**))                                                 \
  X(aoti_torch_get_strides, (Handle, int64_t**))                                               \
  X(aoti_torch_get_numel, (Handle, int64_t*))                                                  \
  X(aoti_torch_get_dtype, (Handle, int32_t*))                                                  \
  X(aoti_torch_get_layout, (Handle, int32_t*))                                                 \
  X(aoti_torch_get_device_type, (Handle, int32_t*))                                            \
  X(aoti_torch_get_device_index, (Handle, int32_t*))                                           \
  X(aoti_torch_empty_strided, (int64_t, const int64_t*, const int64_t*, int32_t, int32_t, int32_t, Handle*))

#define ACCELOPS_DECLARE(name, arguments) extern Error(*name) arguments;
ACCELOPS_TORCH_FUNCTIONS(ACCELOPS_DECLARE)
#undef ACCELOPS_DECLARE

// Finds them once, after `import torch`; returns the names of those that this torch lacks, or an empty string.
const std::string& load();

// A function of a library that is loaded already; null, and its name added to `missing`, where there is none.
void* find(const char* library, const std::string& name, std::string& missing);

// Throws std::runtime_error naming the function; a failure here is a defect, not a user's mistake.
void check(Error error, const char* function);

}  // namespace accelops::torch_abi
