// What the testbenches share: a seed that is printed (and taken as the first argument, to repeat a run), arrays in a board's
// memory with a guard behind them, and comparison bit by bit. A testbench's exit status is 1 where anything differs.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "beat.hpp"

namespace accelops {

// The nearest bf16 by its definition: of the two around x the nearer, of two as near the even one. Infinity counts as 2^128.
inline uint16_t nearest_bf16(float x) {
  if (std::isnan(x)) return 0x7fc0;
  const uint32_t below = bits_of(x) >> 16, above = below + 1;  // in magnitude
  if (std::isinf(x)) return uint16_t(below);
  const double magnitude = std::fabs(double(x)), low = std::fabs(double(float_of(below << 16)));
  const double high = (above & 0x7fff) == 0x7f80 ? std::ldexp(1.0, 128) : std::fabs(double(float_of(above << 16)));
  const bool up = high - magnitude < magnitude - low || (high - magnitude == magnitude - low && (below & 1));
  return uint16_t(up ? above : below);
}

class Testbench {
  std::mt19937 random_;
  const char* kernel_;
  long checks_ = 0, mismatches_ = 0;

 public:
  Testbench(const char* kernel, int argc, char** argv) : kernel_(kernel) {
    const unsigned seed = argc > 1 ? unsigned(std::strtoul(argv[1], nullptr, 10)) : std::random_device()();
    random_.seed(seed);
    std::printf("%s: seed %u\n", kernel, seed);
  }

  uint32_t below(uint32_t limit) { return uint32_t(random_() % limit); }
  float normal() { return std::normal_distribution<float>()(random_); }

  // Equal bits, or both NaN.
  void same(const char* what, uint32_t index, uint32_t got, uint32_t expected, uint32_t infinity = 0x7f800000u) {
    const uint32_t magnitude = infinity | (infinity - 1);
    const bool nans = (got & magnitude) > infinity && (expected & magnitude) > infinity;
    ++checks_;
    if (got == expected || nans || ++mismatches_ > 10) return;
    std::printf("%s: %s[%u] is %#010x, expected %#010x\n", kernel_, what, index, got, expected);
  }

  int status() const {
    std::printf("%s: %ld values compared, %ld differ\n", kernel_, checks_, mismatches_);
    return mismatches_ != 0 || checks_ == 0;
  }
};

// `numel` numbers of 32 bits (or 16), whole beats, and a beat behind them that nobody may write. Filled with garbage.
class Array {
  std::vector<Beat> beats_;
  uint32_t numel_;
  int bits_;

  static constexpr uint32_t kGarbage = 0x7fc0dead;  // a NaN, also as bf16

 public:
  Array(uint32_t numel, int bits) : beats_(beats_of(numel, kPortBits / bits) + 1), numel_(numel), bits_(bits) {
    for (size_t b = 0; b < beats_.size(); ++b)
      for (int i = 0; i < kFloats; ++i) beats_[b].range(32 * i + 31, 32 * i) = kGarbage;
  }

  Beat* data() { return beats_.data(); }
  uint32_t numel() const { return numel_; }
  uint32_t lanes() const { return uint32_t(kPortBits / bits_); }
  uint32_t whole() const { return uint32_t(beats_.size() - 1) * lanes(); }  // elements up to the end of the last beat

  uint32_t get(uint32_t i) const {
    const int lane = int(i % lanes());
    return uint32_t(beats_[i / lanes()].range(bits_ * lane + bits_ - 1, bits_ * lane));
  }
  void set(uint32_t i, uint32_t value) {
    const int lane = int(i % lanes());
    beats_[i / lanes()].range(bits_ * lane + bits_ - 1, bits_ * lane) = value;
  }
  float value(uint32_t i) const { return float_of(bits_ == 32 ? get(i) : get(i) << 16); }
  void set_value(uint32_t i, float x) { set(i, bits_ == 32 ? bits_of(x) : nearest_bf16(x)); }

  // Lanes behind the last element are zero, the guard is as it was.
  void check_end(Testbench& bench, const char* what) const {
    for (uint32_t i = numel_; i < whole(); ++i) bench.same(what, i, get(i), 0);
    for (int i = 0; i < kFloats; ++i)
      bench.same(what, whole() + uint32_t(i), uint32_t(beats_.back().range(32 * i + 31, 32 * i)), kGarbage);
  }
};

}  // namespace accelops
