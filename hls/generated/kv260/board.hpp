// Generated from hls/boards/kv260.json by `python -m accelops.targets.fpga.generate`: never edit it.
// AMD Kria KV260 (Zynq UltraScale+): xck26-sfvc784-2LV-c, 250 MHz.
#pragma once

#include <cstdint>

namespace accelops {

constexpr int kPortBits = 128;
constexpr int kPorts = 4;
constexpr int kStreamDepth = 64;
constexpr int kReduceTileBeats = 512;
constexpr int kReduceAdderCycles = 16;
constexpr int kConvInt8Outputs = 32;
constexpr int kConvInt8Inputs = 32;
constexpr int kConvInt8TilePixels = 512;
constexpr int kConvInt8InputWords = 4096;
constexpr int kConvInt8Ports = 1;
constexpr int kConvFp32Outputs = 8;
constexpr int kConvFp32Inputs = 16;
constexpr int kConvFp32TilePixels = 512;
constexpr int kConvFp32InputWords = 2048;

// CONFIG_HASH in the upper word, VERSION in the lower.
constexpr uint64_t kAdamIdentity = 0x7baa356200000001ull;
constexpr uint64_t kReduceIdentity = 0x118b56a600000001ull;
constexpr uint64_t kConvFp32Identity = 0x9f4599f100000001ull;
constexpr uint64_t kConvInt8Identity = 0x10553e6900000002ull;

}  // namespace accelops
