// Generated from hls/boards/pynq-z2.json by `python -m accelops.targets.fpga.generate`: never edit it.
// TUL PYNQ-Z2 (Zynq-7000): xc7z020clg400-1, 100 MHz.
#pragma once

#include <cstdint>

namespace accelops {

constexpr int kPortBits = 64;
constexpr int kPorts = 4;
constexpr int kStreamDepth = 64;
constexpr int kReduceTileBeats = 512;
constexpr int kReduceAdderCycles = 16;

// CONFIG_HASH in the upper word, VERSION in the lower.
constexpr uint64_t kAdamIdentity = 0xffa58ffd00000001ull;
constexpr uint64_t kReduceIdentity = 0xf567430e00000001ull;

}  // namespace accelops
