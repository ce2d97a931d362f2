// The two inner loops of the grouped convolution. In planes staged with one row pitch, tap t of the filter is nothing but
// an offset: result point i of channel k is the sum over taps of weight[t][k] * x[offset[t] + i], whatever the dimension,
// stride or dilation. The points of all rows are one long vector; those that fall between rows are computed and dropped.
//   correlate: lanes along points; K channels x V vectors of accumulators; each loaded x serves K multiply-adds
//   outer:     lanes along points; K channels x T taps of accumulators, summed over all points for the weight gradient
// With AVX-512, 24 accumulators leave eight registers for operands: 4 x 6 is 24 multiply-adds on 10 loads.
#pragma once

#include "vec.hpp"

namespace accelops::ACCELOPS_ISA {

constexpr int accumulators = Vec::lanes == 16 ? 24 : 12;
constexpr int max_channels = Vec::lanes == 16 ? 8 : 6;  // K of correlate
constexpr int outer_channels = 4;                       // K of outer
constexpr int outer_taps = accumulators / outer_channels;

// V for K channels; past eight the accumulators already cover the latency of a multiply-add.
constexpr int max_vectors(int channels) { return accumulators / channels < 8 ? accumulators / channels : 8; }

// At most so many terms are summed in sequence, then added up: 288 of them (32 channels, 3x3) had more than twice torch's error.
constexpr int64_t sum_taps = 72;

template <int K, int V>
void correlate_tile(const float* x, const int64_t* offset, const float* weight, int64_t taps, bool add, float* y, int64_t plane) {
  Vec sum[K][V];
#pragma GCC unroll 8
  for (int k = 0; k < K; ++k)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[k][v] = Vec(0.0f);
  for (int64_t t = 0; t < taps; ++t, weight += K) {
    const float* from = x + offset[t];
    Vec value[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) value[v] = Vec::load(from + v * Vec::lanes);
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) {
      const Vec w(weight[k]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[k][v] = fma(w, value[v], sum[k][v]);
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < K; ++k)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      float* const to = y + k * plane + v * Vec::lanes;
      (add ? sum[k][v] + Vec::load(to) : sum[k][v]).store(to);
    }
}

struct Correlation {
  const float* x;
  const int64_t* offset;
  const float* weight;  // [tap][K]
  int64_t taps;
  float* y;  // K planes, `plane` apart
  int64_t plane;
};

template <int K, int V>
void correlate_vectors(const Correlation& c, int64_t i, int vectors) {
  if constexpr (V > 1) {
    if (vectors < V) return correlate_vectors<K, V - 1>(c, i, vectors);
  }
  for (int64_t t = 0; t == 0 || t < c.taps; t += sum_taps) {
    const int64_t taps = c.taps - t < sum_taps ? c.taps - t : sum_taps;
    correlate_tile<K, V>(c.x + i, c.offset + t, c.weight + t * K, taps, t > 0, c.y + i, c.plane);
  }
}

// `points` rounded up to whole vectors, in tiles of nearly equal width.
template <int K>
void correlate_points(const Correlation& c, int64_t points) {
  const int64_t vectors = (points + Vec::lanes - 1) / Vec::lanes;
  const int64_t tiles = (vectors + max_vectors(K) - 1) / max_vectors(K);
  int64_t done = 0;
  for (int64_t t = 1; t <= tiles; ++t) {
    const int64_t end = vectors * t / tiles;
    correlate_vectors<K, max_vectors(K)>(c, done * Vec::lanes, static_cast<int>(end - done));
    done = end;
  }
}

template <int K = max_channels>
void correlate(int channels, const Correlation& c, int64_t points) {
  if constexpr (K > 1) {
    if (channels < K) return correlate<K - 1>(channels, c, points);
  }
  correlate_points<K>(c, points);
}

// sum[t][k] += sum over i of g[k][i] * x[offset[t] + i], kept as vectors of partial sums; `stride` floats between taps.
template <int K, int T>
void outer_tile(const float* g, int64_t plane, const float* x, const int64_t* offset, int64_t points, float* total,
                int64_t stride) {
  Vec sum[K][T];
  const float* from[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    from[t] = x + offset[t];
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) sum[k][t] = Vec(0.0f);
  }
  for (int64_t i = 0; i < points; i += Vec::lanes) {
    Vec gradient[K];
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) gradient[k] = Vec::load(g + k * plane + i);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const Vec value = Vec::load(from[t] + i);
#pragma GCC unroll 8
      for (int k = 0; k < K; ++k) sum[k][t] = fma(gradient[k], value, sum[k][t]);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) {
      float* to = total + t * stride + k * Vec::lanes;
      (Vec::load(to) + sum[k][t]).store(to);
    }
  }
}

struct Outer {
  const float* g;  // planes, zero past their last point and between rows
  int64_t plane;
  const float* x;
  const int64_t* offset;
  int64_t taps, points;
  float* total;  // [tap][channel] vectors of partial sums
  int64_t channels;
};

template <int K, int T = outer_taps>
void outer_vectors(const Outer& o, int64_t k, int64_t t, int64_t taps) {
  if constexpr (T > 1) {
    if (taps < T) return outer_vectors<K, T - 1>(o, k, t, taps);
  }
  outer_tile<K, T>(o.g + k * o.plane, o.plane, o.x, o.offset + t, o.points,
                   o.total + (t * o.channels + k) * Vec::lanes, o.channels * Vec::lanes);
}

template <int K = outer_channels>
void outer_taps_of(const Outer& o, int64_t k, int64_t channels) {
  if constexpr (K > 1) {
    if (channels < K) return outer_taps_of<K - 1>(o, k, channels);
  }
  const int64_t tiles = (o.taps + outer_taps - 1) / outer_taps;
  for (int64_t tile = 0, done = 0; tile < tiles; ++tile) {
    const int64_t end = o.taps * (tile + 1) / tiles;
    outer_vectors<K>(o, k, done, end - done);
    done = end;
  }
}

inline void outer(const Outer& o) {
  const int64_t tiles = (o.channels + outer_channels - 1) / outer_channels;
  for (int64_t tile = 0, done = 0; tile < tiles; ++tile) {
    const int64_t end = o.channels * (tile + 1) / tiles;
    outer_taps_of(o, done, end - done);
    done = end;
  }
}

}  // namespace accelops::ACCELOPS_ISA
