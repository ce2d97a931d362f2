#include "torch_abi.hpp"

#include <dlfcn.h>

#include <stdexcept>

namespace accelops::torch_abi {

#define ACCELOPS_DEFINE(name, arguments) Error(*name) arguments = nullptr;
ACCELOPS_TORCH_FUNCTIONS(ACCELOPS_DEFINE)
#undef ACCELOPS_DEFINE
Convolution convolution_cpu = nullptr;
ConvolutionBackward convolution_backward_cpu = nullptr;

namespace {

template <class F>
void find(void* library, const char* name, F& function, std::string& missing) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (!function) missing += (missing.empty() ? "" : ", ") + std::string(name);
}

}  // namespace

std::string load() {
  void* library = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  if (!library) return "libtorch_cpu.so is not loaded";
  std::string missing;
#define ACCELOPS_FIND(name, arguments) find(library, #name, name, missing);
  ACCELOPS_TORCH_FUNCTIONS(ACCELOPS_FIND)
#undef ACCELOPS_FIND
  find(library, "aoti_torch_cpu_convolution", convolution_cpu, missing);
  find(library, "aoti_torch_cpu_convolution_backward", convolution_backward_cpu, missing);
  return missing;
}

void check(Error error, const char* function) {
  if (error != 0) throw std::runtime_error(std::string("accelops: torch's ") + function + " failed");
}

}  // namespace accelops::torch_abi
