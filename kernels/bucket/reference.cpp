// Bucketing by its definition, one element at a time in fp64: the ground truth of every other implementation.
// The result is the exact value rounded once. A double cannot be rounded to bf16 or f16 by way of the nearest float (that
// rounds twice); by way of the float rounded to odd it can (Boldo and Melquiond 2008, "Emulation of a FMA and correctly
// rounded sums: proved algorithms using rounding to odd").
#include <cmath>

#include "bucket/table.hpp"
#include "thread_pool.hpp"

namespace accelops {
namespace {

constexpr int64_t kChunk = 4096;

// x itself where a float holds it, else that neighbour of x among the floats whose last bit is 1.
float to_odd(double x) {
  const float near = static_cast<float>(x);
  if (near == x || x != x) return near;
  if (std::isinf(near)) return std::copysign(3.40282347e38f, near);  // the largest float is odd
  const bool odd = to_bits(near) & 1u;
  return odd ? near : std::nextafterf(near, near < x ? INFINITY : -INFINITY);
}

void put(double x, float& to) { to = static_cast<float>(x); }
template <class T>
void put(double x, T& to) {
  from_float(std::isinf(x) ? static_cast<float>(x) : to_odd(x), to);
}

double get(DType type, const void* from, int64_t i) {
  switch (type) {
    case DType::f32: return static_cast<const float*>(from)[i];
    case DType::bf16: return to_float(static_cast<const bf16*>(from)[i]);
    case DType::f16: return to_float(static_cast<const f16*>(from)[i]);
    default: return static_cast<const double*>(from)[i];
  }
}

void set(DType type, void* to, int64_t i, double x) {
  switch (type) {
    case DType::f32: return put(x, static_cast<float*>(to)[i]);
    case DType::bf16: return put(x, static_cast<bf16*>(to)[i]);
    case DType::f16: return put(x, static_cast<f16*>(to)[i]);
    default: static_cast<double*>(to)[i] = x;
  }
}

void pack(const BucketMove& m, int threads) {
  for (int64_t k = 0; k < m.count; ++k) {
    const BucketTensor& t = m.tensors[k];
    parallel_for(threads, t.numel, kChunk, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = t.begin + i;
        const double scaled = m.scale * get(t.dtype, m.data[k], offset_of(t, i));
        const double y = m.residual ? scaled + m.residual[at] : scaled;  // adding 0.0 would lose the sign of -0.0
        set(m.wire, m.flat, at, y);
        if (!m.residual) continue;
        const double wire = get(m.wire, m.flat, at);
        m.residual[at] = std::isfinite(wire) ? static_cast<float>(y - wire) : 0.0f;
      }
    });
  }
}

void unpack(const BucketMove& m, int threads) {
  for (int64_t k = 0; k < m.count; ++k) {
    const BucketTensor& t = m.tensors[k];
    parallel_for(threads, t.numel, kChunk, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        set(t.dtype, m.data[k], offset_of(t, i), m.scale * get(m.wire, m.flat, t.begin + i));
    });
  }
}

void reduce(const BucketReduce& r, int threads) {
  parallel_for(threads, r.numel, kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double sum = get(r.wire, r.flats[0], i);
      for (int64_t rank = 1; rank < r.ranks; ++rank) sum += get(r.wire, r.flats[rank], i);
      set(r.dtype, r.out, i, r.scale * sum);
    }
  });
}

}  // namespace

const BucketKernels bucket_reference{pack, unpack, reduce};

}  // namespace accelops
