// Generated from hls/boards/kv260.json by `python -m accelops.targets.fpga.generate`: never edit it.
// AMD Kria KV260 (Zynq UltraScale+): xck26-sfvc784-2LV-c, 250 MHz.
#pragma once

#include <cstdint>

namespace accelops {

constexpr int kPortBits = 128;
constexpr int kPorts = 4;
constexpr int kStreamDepth = 64;
constexpr int kReduceTileBeats = 512;

// CONFIG_HASH in the upper word, VERSION in the lower.
constexpr uint64_t kAdamIdentity = 0x3ce4b1f600000001ull;
constexpr uint64_t kReduceIdentity = 0xa78b23e600000001ull;

}  // namespace accelops
