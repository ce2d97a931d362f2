// Generated from hls/boards/u250.json by `python -m accelops.targets.fpga.generate`: never edit it.
// AMD Alveo U250: xcu250-figd2104-2L-e, 300 MHz.
#pragma once

#include <cstdint>

namespace accelops {

constexpr int kPortBits = 512;
constexpr int kPorts = 4;
constexpr int kStreamDepth = 64;
constexpr int kReduceTileBeats = 512;
constexpr int kReduceAdderCycles = 16;
constexpr int kConvInt8Outputs = 64;
constexpr int kConvInt8Inputs = 64;
constexpr int kConvInt8TilePixels = 512;
constexpr int kConvInt8InputWords = 4096;
constexpr int kConvInt8Ports = 1;
constexpr int kConvFp32Outputs = 16;
constexpr int kConvFp32Inputs = 32;
constexpr int kConvFp32TilePixels = 512;
constexpr int kConvFp32InputWords = 4096;

// CONFIG_HASH in the upper word, VERSION in the lower.
constexpr uint64_t kAdamIdentity = 0x0a74193600000001ull;
constexpr uint64_t kReduceIdentity = 0xcb2499cd00000001ull;
constexpr uint64_t kConvFp32Identity = 0x183316b200000001ull;
constexpr uint64_t kConvInt8Identity = 0x53f6235500000002ull;

}  // namespace accelops
