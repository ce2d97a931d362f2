#include "torch_abi.hpp"

#include <dlfcn.h>

#include <stdexcept>

namespace accelops::torch_abi {

#define ACCELOPS_DEFINE(name, arguments) Error(*name) arguments = nullptr;
ACCELOPS_TORCH_FUNCTIONS(ACCELOPS_DEFINE)
#undef ACCELOPS_DEFINE

const std::string& load() {
  static const std::string missing = [] {
    std::string names;
#define ACCELOPS_FIND(name, arguments) name = reinterpret_cast<Error(*) arguments>(find("libtorch_cpu.so", #name, names));
    ACCELOPS_TORCH_FUNCTIONS(ACCELOPS_FIND)
#undef ACCELOPS_FIND
    return names;
  }();
  return missing;
}

void* find(const char* library, const std::string& name, std::string& missing) {
  void* const loaded = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
  void* const function = loaded ? dlsym(loaded, name.c_str()) : nullptr;
  if (!function) missing += (missing.empty() ? "" : ", ") + name;
  return function;
}

void check(Error error, const char* function) {
  if (error != 0) throw std::runtime_error(std::string("accelops: torch's ") + function + " failed");
}

}  // namespace accelops::torch_abi
