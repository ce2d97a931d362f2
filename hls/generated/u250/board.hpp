// Generated from hls/boards/u250.json by `python -m accelops.targets.fpga.generate`: never edit it.
// AMD Alveo U250: xcu250-figd2104-2L-e, 300 MHz.
#pragma once

#include <cstdint>

namespace accelops {

constexpr int kPortBits = 512;
constexpr int kPorts = 4;
constexpr int kStreamDepth = 64;
constexpr int kReduceTileBeats = 512;

// CONFIG_HASH in the upper word, VERSION in the lower.
constexpr uint64_t kAdamIdentity = 0xf65e103000000001ull;
constexpr uint64_t kReduceIdentity = 0x92fb305200000001ull;

}  // namespace accelops
