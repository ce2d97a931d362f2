#include "isa.hpp"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace accelops {
namespace {

Isa best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return Isa::avx2;
#endif
  return Isa::baseline;
}

}  // namespace

Isa isa() {
  static const Isa chosen = [] {
    Isa most = best();
    const char* asked = std::getenv("ACCELOPS_ISA");
    for (Isa i : {Isa::baseline, Isa::avx2})
      if (asked && std::strcmp(asked, name(i)) == 0 && i < most) most = i;
    return most;
  }();
  return chosen;
}

const char* name(Isa i) { return i == Isa::avx512 ? "avx512" : i == Isa::avx2 ? "avx2" : "baseline"; }

}  // namespace accelops
