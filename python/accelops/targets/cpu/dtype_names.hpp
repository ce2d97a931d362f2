// torch's names of the dtypes that have native kernels.
#pragma once

#include <stdexcept>
#include <string>

#include "number.hpp"

namespace accelops {

// Throws std::invalid_argument (ValueError in Python) for any other.
inline DType dtype_of(const std::string& name) {
  if (name == "float32") return DType::f32;
  if (name == "float64") return DType::f64;
  if (name == "bfloat16") return DType::bf16;
  if (name == "float16") return DType::f16;
  throw std::invalid_argument("dtype: there is no native kernel for " + name);
}

}  // namespace accelops
