// ap_uint for C-simulation without Vitis: only what the kernels use, which is a beat of 32-bit or 16-bit lanes, or of bytes.
// Same size in memory as the real type: a beat is an array of its bytes, the lowest bit first.
#pragma once

#if defined(__SYNTHESIS__) || defined(__VITIS_HLS__)
#error "hls/sim is on the include path under Vitis HLS, which brings its own ap_int.h: remove it"
#endif

#include <cstdint>
#include <cstdio>
#include <cstdlib>

template <int Bits>
class ap_uint {
  static_assert(Bits % 64 == 0 && Bits > 0, "C-simulation has only beats of whole 64-bit words");
  uint64_t words_[Bits / 64];

  static void check(int high, int low) {
    if (low >= 0 && high >= low && high < Bits && high / 64 == low / 64) return;
    std::fprintf(stderr, "ap_uint<%d>: range(%d, %d) is out of bounds or crosses a 64-bit word\n", Bits, high, low);
    std::abort();
  }
  static uint64_t mask(int high, int low) { return ~uint64_t{0} >> (63 - (high - low)); }

  uint64_t get(int high, int low) const {
    check(high, low);
    return words_[low / 64] >> (low % 64) & mask(high, low);
  }
  void set(int high, int low, uint64_t value) {
    check(high, low);
    uint64_t& word = words_[low / 64];
    word = (word & ~(mask(high, low) << (low % 64))) | (value & mask(high, low)) << (low % 64);
  }

 public:
  class Range {
    ap_uint& of_;
    int high_, low_;

   public:
    Range(ap_uint& of, int high, int low) : of_(of), high_(high), low_(low) {}
    operator uint64_t() const { return of_.get(high_, low_); }
    Range& operator=(uint64_t value) {
      of_.set(high_, low_, value);
      return *this;
    }
  };

  ap_uint() : words_{} {}
  ap_uint(uint64_t value) : words_{value} {}
  Range range(int high, int low) { return Range(*this, high, low); }
  uint64_t range(int high, int low) const { return get(high, low); }
  bool operator==(const ap_uint& other) const {
    for (int i = 0; i < Bits / 64; ++i)
      if (words_[i] != other.words_[i]) return false;
    return true;
  }
};
