// The reduction kernel's top function, as the host calls it: hls/bucket/kernel.json names its arguments, in this order.
//
// For each bucket out[i] = cast(scale * (flats[0][i] + flats[1][i] + ...)), summed in fp32 in the order of the ranks.
// `flats0` to `flats3` are the same address, through four ports, and so are `out0` to `out3`. A bucket's descriptor is
// four words: its first beat in `flats`, how many beats further the next rank's is, its first beat in `out`, its elements.
#pragma once

#include "beat.hpp"

namespace accelops {

// Flags of a call: the inputs are bf16, the output is bf16; otherwise they are fp32.
constexpr uint32_t kWireBf16 = 1, kOutBf16 = 2;

constexpr int kDescriptorWords = 4;

// One engine for each port; stage s of engine e counts its trips at s * kEngines + e, the schedule at 0.
constexpr int kEngines = kPorts;
static_assert(kEngines == 4, "the top function has an argument for each engine: four");

enum ReduceStage { kSchedule, kLoad, kAccumulate, kRound, kStore };

}  // namespace accelops

extern "C" void reduce(const accelops::Beat* flats0, const accelops::Beat* flats1, const accelops::Beat* flats2,
                       const accelops::Beat* flats3, accelops::Beat* out0, accelops::Beat* out1, accelops::Beat* out2,
                       accelops::Beat* out3, const uint32_t* descriptors, uint32_t buckets, uint32_t ranks, float scale,
                       uint32_t flags, uint64_t* identity);
