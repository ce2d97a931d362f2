#include "torch_abi.hpp"

#include <dlfcn.h>

#include <stdexcept>

namespace accelops::torch_abi {

#define ACCELOPS_DEFINE(name, arguments) Error(*name) arguments = nullptr;
ACCELOPS_TORCH_FUNCTIONS(ACCELOPS_DEFINE)
#undef ACCELOPS_DEFINE
Own own[device_count] = {};

namespace {

void add(std::string& missing, const char* name) { missing += (missing.empty() ? "" : ", ") + std::string(name); }

void* loaded(const char* library, std::string& missing) {
  void* handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
  if (!handle) add(missing, library);
  return handle;
}

template <class F>
void find(void* library, const char* name, F& function, std::string& missing) {
  function = library ? reinterpret_cast<F>(dlsym(library, name)) : nullptr;
  if (!function) add(missing, name);
}

}  // namespace

std::string load(Device device) {
  std::string missing;
  void* const library = loaded("libtorch_cpu.so", missing);
#define ACCELOPS_FIND(name, arguments) find(library, #name, name, missing);
  ACCELOPS_TORCH_FUNCTIONS(ACCELOPS_FIND)
#undef ACCELOPS_FIND
  void* const home = device == cpu ? library : loaded("libtorch_cuda.so", missing);
  const std::string prefix = device == cpu ? "aoti_torch_cpu_" : "aoti_torch_cuda_";
  find(home, (prefix + "convolution").c_str(), own[device].forward, missing);
  find(home, (prefix + "convolution_backward").c_str(), own[device].backward, missing);
  return missing;
}

void check(Error error, const char* function) {
  if (error != 0) throw std::runtime_error(std::string("accelops: torch's ") + function + " failed");
}

}  // namespace accelops::torch_abi
