// Operands and results of the self-check: arrays of any dtype that stand among NaN, so that a result that is not
// written, a read beyond an operand and a write beyond a result all show; and the list of what failed.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "number.hpp"

namespace accelops::self_check {

using Random = std::mt19937_64;

inline const char* name(DType t) {
  return t == DType::f32 ? "f32" : t == DType::f64 ? "f64" : t == DType::bf16 ? "bf16" : "f16";
}

// The distance from 1 to the next number.
inline double epsilon(DType t) {
  return t == DType::f32 ? 0x1p-23 : t == DType::f64 ? 0x1p-52 : t == DType::bf16 ? 0x1p-7 : 0x1p-10;
}

class Array {
 public:
  // Filled with NaN: all bits set are one in every dtype. Begins `shift` elements after a cache line.
  Array(DType type, int64_t count, int64_t shift = 0)
      : type_(type),
        count_(count),
        bytes_(static_cast<size_t>((2 * kGuard + shift + count) * size_of(type)) + 64, kNaN) {
    const size_t odd = reinterpret_cast<uintptr_t>(bytes_.data()) % 64;
    first_ = (odd ? 64 - odd : 0) + static_cast<size_t>((kGuard + shift) * size_of(type));
  }
  Array(const Array& other) : Array(other.type_, other.count_) {
    if (count_) std::memcpy(data(), other.data(), size());
  }
  Array(Array&&) = default;  // the memory stays where it is

  DType type() const { return type_; }
  int64_t count() const { return count_; }
  void* data() { return bytes_.data() + first_; }
  const void* data() const { return bytes_.data() + first_; }
  template <class T>
  T* as() {
    return static_cast<T*>(data());
  }

  double operator[](int64_t i) const {
    switch (type_) {
      case DType::f32: return static_cast<const float*>(data())[i];
      case DType::f64: return static_cast<const double*>(data())[i];
      case DType::bf16: return to_float(static_cast<const bf16*>(data())[i]);
      default: return to_float(static_cast<const f16*>(data())[i]);
    }
  }
  void set(int64_t i, double x) {
    switch (type_) {
      case DType::f32: as<float>()[i] = static_cast<float>(x); break;
      case DType::f64: as<double>()[i] = x; break;
      case DType::bf16: as<bf16>()[i] = to_bf16(static_cast<float>(x)); break;
      case DType::f16: as<f16>()[i] = to_f16(static_cast<float>(x)); break;
    }
  }

  Array& fill(Random& random) {
    std::normal_distribution<double> normal;
    return map([&](double) { return normal(random); });
  }
  template <class F>
  Array& map(const F& f) {
    for (int64_t i = 0; i < count_; ++i) set(i, f((*this)[i]));
    return *this;
  }

  double largest() const {
    double most = 0;
    for (int64_t i = 0; i < count_; ++i) most = std::fmax(most, std::fabs((*this)[i]));
    return most;
  }
  // The greatest difference; infinite where only one is NaN.
  double error(const Array& other) const {
    double most = 0;
    for (int64_t i = 0; i < count_; ++i) {
      const double a = (*this)[i], b = other[i];
      if (a == b || (std::isnan(a) && std::isnan(b))) continue;
      const double difference = std::fabs(a - b);
      most = std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::fmax(most, difference);
    }
    return most;
  }
  bool same_bits(const Array& other) const { return count_ == 0 || std::memcmp(data(), other.data(), size()) == 0; }
  bool guards_intact() const {
    for (size_t i = 0; i < bytes_.size(); ++i)
      if ((i < first_ || i >= first_ + size()) && bytes_[i] != kNaN) return false;
    return true;
  }

 private:
  static constexpr unsigned char kNaN = 0xff;
  static constexpr int64_t kGuard = 64;

  size_t size() const { return static_cast<size_t>(count_ * size_of(type_)); }

  DType type_;
  int64_t count_;
  std::vector<unsigned char> bytes_;
  size_t first_;
};

// What all threads report to.
class Report {
 public:
  void passed() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++checks_;
  }
  void failed(const std::string& what) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++checks_, ++failures_;
    if (failures_ <= 50) std::fprintf(stderr, "FAILED %s\n", what.c_str());
  }
  void check(bool holds, const std::string& what) { holds ? passed() : failed(what); }
  // `got` is as near to `want` as `allowed`, and nothing around it was written.
  void check_near(const Array& got, const Array& want, double allowed, const std::string& what) {
    const double error = got.error(want);
    if (!got.guards_intact()) return failed(what + ": written beyond its bounds");
    if (!(error <= allowed))
      return failed(what + ": error " + std::to_string(error) + ", allowed " + std::to_string(allowed));
    passed();
  }
  long checks() const { return checks_; }
  long failures() const { return failures_; }

 private:
  std::mutex mutex_;
  long checks_ = 0, failures_ = 0;
};

// One op's checks. Thorough: every combination of what a case can vary; else one, drawn at random.
void check_conv(Random&, bool thorough, Report&);
void check_adam(Random&, bool thorough, Report&);
void check_bucket(Random&, bool thorough, Report&);

}  // namespace accelops::self_check
