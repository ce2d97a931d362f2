// Which instruction set to run. Every kernels/*/cpu*.cpp is compiled once per set, inside namespace accelops::ACCELOPS_ISA
// (avx512, avx2 or baseline: SSE2 on x86-64, NEON on aarch64), and ends in one table of functions; `choose` picks a table.
// Such files must not instantiate inline code of the standard library out of line: the linker keeps one copy of it for
// the whole extension, and that copy might use instructions that this machine lacks (tests/test_native.py looks).
#pragma once

namespace accelops {

enum class Isa { baseline, avx2, avx512 };

// The best set that this machine runs and this build holds; ACCELOPS_ISA=baseline|avx2|avx512 in the environment lowers it.
Isa isa();
const char* name(Isa);

template <class Table>
const Table& choose(const Table& baseline, const Table& avx2, const Table& avx512) {
  switch (isa()) {
    case Isa::avx512: return avx512;
    case Isa::avx2: return avx2;
    default: return baseline;
  }
}

}  // namespace accelops
