// Working memory of one call or one chunk of it: uninitialised, aligned to a cache line, freed with its scope.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace accelops::ACCELOPS_ISA {

template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : data_(static_cast<T*>(std::aligned_alloc(64, (count * sizeof(T) + 64) / 64 * 64))) {
    if (!data_) std::abort();
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  operator T*() const { return data_; }

 private:
  T* data_;
};

}  // namespace accelops::ACCELOPS_ISA
