// ap_uint and ap_int for C-simulation without Vitis: only what the kernels use. ap_uint is a beat or a block, of lanes of 32,
// 16 or 8 bits, of the same size in memory as the real type: an array of its bytes, the lowest bit first. ap_int is the
// narrow operand or result of one multiplier, which wraps as the real one does.
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

template <int Bits>
class ap_int {
  static_assert(Bits > 0 && Bits <= 64, "C-simulation has ap_int of up to 64 bits");
  int64_t value_;

 public:
  ap_int(int64_t value = 0) : value_(int64_t(uint64_t(value) << (64 - Bits)) >> (64 - Bits)) {}
  operator int64_t() const { return value_; }
};
