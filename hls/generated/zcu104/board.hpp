// Generated from hls/boards/zcu104.json by `python -m accelops.targets.fpga.generate`: never edit it.
// AMD ZCU104 (Zynq UltraScale+): xczu7ev-ffvc1156-2-e, 250 MHz.
#pragma once

#include <cstdint>

namespace accelops {

constexpr int kPortBits = 128;
constexpr int kPorts = 4;
constexpr int kStreamDepth = 64;
constexpr int kReduceTileBeats = 512;
constexpr int kReduceAdderCycles = 16;
constexpr int kConvInt8Outputs = 32;
constexpr int kConvInt8Inputs = 64;
constexpr int kConvInt8TilePixels = 512;
constexpr int kConvInt8InputWords = 4096;
constexpr int kConvInt8Ports = 2;
constexpr int kConvFp32Outputs = 16;
constexpr int kConvFp32Inputs = 16;
constexpr int kConvFp32TilePixels = 512;
constexpr int kConvFp32InputWords = 4096;

// CONFIG_HASH in the upper word, VERSION in the lower.
constexpr uint64_t kAdamIdentity = 0x7baa356200000001ull;
constexpr uint64_t kReduceIdentity = 0x118b56a600000001ull;
constexpr uint64_t kConvFp32Identity = 0x9551405d00000001ull;
constexpr uint64_t kConvInt8Identity = 0xec8e47bc00000002ull;

}  // namespace accelops
