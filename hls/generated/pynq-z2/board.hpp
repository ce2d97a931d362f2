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
constexpr int kConvInt8Outputs = 16;
constexpr int kConvInt8Inputs = 16;
constexpr int kConvInt8TilePixels = 256;
constexpr int kConvInt8InputWords = 8192;
constexpr int kConvInt8Ports = 1;
constexpr int kConvFp32Outputs = 4;
constexpr int kConvFp32Inputs = 8;
constexpr int kConvFp32TilePixels = 256;
constexpr int kConvFp32InputWords = 2048;

// CONFIG_HASH in the upper word, VERSION in the lower.
constexpr uint64_t kAdamIdentity = 0xffa58ffd00000001ull;
constexpr uint64_t kReduceIdentity = 0xf567430e00000001ull;
constexpr uint64_t kConvFp32Identity = 0x46b2074a00000001ull;
constexpr uint64_t kConvInt8Identity = 0x074ea49100000002ull;

}  // namespace accelops
