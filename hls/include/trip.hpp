// TRIP(stage, n) counts n iterations of a pipelined loop, in C-simulation without Vitis only. The counts are what the cycle
// model in Python must say; a top function hands them out as accelops_trips(), in the order of its Stage.
#pragma once

#if defined(__SYNTHESIS__) || defined(__VITIS_HLS__)
#define TRIP(stage, n) ((void)0)
#else

#include <cstdint>

namespace accelops {

inline uint64_t* trips() {
  static uint64_t counts[64];
  return counts;
}

}  // namespace accelops

#define TRIP(stage, n) (accelops::trips()[stage] += (n))
extern "C" inline __attribute__((used, visibility("default"))) uint64_t* accelops_trips() { return accelops::trips(); }

#endif
