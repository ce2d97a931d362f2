// torch's own convolution on one device type, below the dispatcher, so that an override of the dispatcher's can call it
// (torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h and c_shim_cuda.h).
#pragma once

#include <cstdint>
#include <string>

#include "torch_abi.hpp"

namespace accelops::torch_abi {

using Convolution = Error (*)(Handle, Handle, Handle*, const int64_t*, int64_t, const int64_t*, int64_t, const int64_t*,
                              int64_t, int32_t, const int64_t*, int64_t, int64_t, Handle*);
using ConvolutionBackward = Error (*)(Handle, Handle, Handle, const int64_t**, int64_t, const int64_t*, int64_t,
                                      const int64_t*, int64_t, const int64_t*, int64_t, int32_t, const int64_t*, int64_t,
                                      int64_t, const int32_t*, int64_t, Handle*, Handle*, Handle*);
enum Device { cpu, cuda };
struct OwnConvolution {
  Convolution forward;
  ConvolutionBackward backward;
};
template <Device device>
inline OwnConvolution own{};

// Sets own<device>; returns what is missing, or an empty string.
template <Device device>
std::string find_own() {
  const char* const library = device == cpu ? "libtorch_cpu.so" : "libtorch_cuda.so";
  const std::string prefix = device == cpu ? "aoti_torch_cpu_" : "aoti_torch_cuda_";
  std::string missing;
  own<device>.forward = reinterpret_cast<Convolution>(find(library, prefix + "convolution", missing));
  own<device>.backward = reinterpret_cast<ConvolutionBackward>(find(library, prefix + "convolution_backward", missing));
  return missing;
}

}  // namespace accelops::torch_abi
