// The arithmetic of every depthwise convolution, on fp32 scratch: correlate (fprop and dgrad) and accumulate (wgrad).
//
// Taps are taken in Runs: up to 7 taps whose inputs lie one result row apart. A block of up to 14 result rows is held
// in registers, one vector wide; an input vector, once loaded, meets every (row, tap of the run) pair that it serves,
// so that a 7x7 kernel costs 27 loads per 98 multiply-adds and the FMA units, not the loads, are the limit.
#pragma once

#include "vec.hpp"

namespace accelops::ACCELOPS_ISA {

constexpr int kRunTaps = 7;
constexpr int kBlockRows = Vec::lanes == 16 ? 14 : 8;  // more than 8 and the weights spill from 16 registers

struct Run {
  int64_t source;  // of its first tap, from the input of the first result
  int64_t tap;     // its first, in the order of the packed weights
  int64_t taps;
};

// One plane of results and what it gathers from. Lanes over channels: `vectors` per column, weights and weight
// gradients one vector per tap and vector. Lanes along rows: vectors is 1, weights are scalars, weight gradients a
// vector per tap.
struct Plane {
  const Run* runs;
  int64_t run_count;
  int64_t rows, columns, vectors;
  int64_t source_pitch, source_column;
  int64_t result_pitch, result_column;
};

// Memory that the coming tasks will touch, asked for a few cache lines at a time between the columns of this one: a
// task alternates between reading, computing and writing, and no hardware prefetcher sees across (1.5x on planes beyond
// L2).
struct Ahead {
  const char* at[2];
  int64_t lines[2];  // per column and vector

  void step() {
    for (int which = 0; which < 2; ++which)
      for (int64_t i = 0; i < lines[which]; ++i, at[which] += 64) __builtin_prefetch(at[which]);
  }
};

template <int rows, int taps, bool channels>
static inline void correlate_run(const float* x, int64_t pitch, const float* weight, int64_t stride, Vec (&sum)[rows]) {
  Vec w[taps];
  for (int r = 0; r < taps; ++r) w[r] = channels ? Vec::load(weight + r * stride) : Vec(weight[r]);
#pragma GCC unroll 20
  for (int i = 0; i < rows + taps - 1; ++i) {
    const Vec in = Vec::load(x + i * pitch);
#pragma GCC unroll 8
    for (int r = 0; r < taps; ++r)
      if (i - r >= 0 && i - r < rows) sum[i - r] = fma(in, w[r], sum[i - r]);
  }
}

// The runs of equal length from `run` on; returns the first of another length.
template <int rows, int taps, bool channels>
static inline const Run* correlate_runs(const Run* run, const Run* end, const float* x, int64_t pitch,
                                        const float* weight, int64_t stride, Vec (&sum)[rows]) {
  do {
    correlate_run<rows, taps, channels>(x + run->source, pitch, weight + run->tap * stride, stride, sum);
  } while (++run < end && run->taps == taps);
  return run;
}

template <int rows, bool channels>
static void correlate_rows(const Plane& p, const float* source, const float* weight, float* result, Ahead& ahead) {
  const int64_t pitch = p.source_pitch, stride = channels ? p.vectors * Vec::lanes : 1;
  for (int64_t column = 0; column < p.columns; ++column) {
    for (int64_t v = 0; v < (channels ? p.vectors : 1); ++v) {
      ahead.step();
      const float* x = source + column * p.source_column + v * Vec::lanes;
      const float* w = weight + v * Vec::lanes;
      Vec sum[rows];
      for (int i = 0; i < rows; ++i) sum[i] = Vec(0.0f);
      const Run *run = p.runs, *end = run + p.run_count;
      while (run < end) {
        switch (run->taps) {
          case 1: run = correlate_runs<rows, 1, channels>(run, end, x, pitch, w, stride, sum); break;
          case 2: run = correlate_runs<rows, 2, channels>(run, end, x, pitch, w, stride, sum); break;
          case 3: run = correlate_runs<rows, 3, channels>(run, end, x, pitch, w, stride, sum); break;
          case 4: run = correlate_runs<rows, 4, channels>(run, end, x, pitch, w, stride, sum); break;
          case 5: run = correlate_runs<rows, 5, channels>(run, end, x, pitch, w, stride, sum); break;
          case 6: run = correlate_runs<rows, 6, channels>(run, end, x, pitch, w, stride, sum); break;
          case 7: run = correlate_runs<rows, 7, channels>(run, end, x, pitch, w, stride, sum); break;
        }
      }
      for (int i = 0; i < rows; ++i)
        sum[i].store(result + i * p.result_pitch + column * p.result_column + v * Vec::lanes);
    }
  }
}

template <int rows, int taps>
static inline void accumulate_run(const float* x, int64_t pitch, const Vec (&g)[rows], float* gradient, int64_t stride,
                                  int valid) {
  Vec sum[taps];
  for (int r = 0; r < taps; ++r) sum[r] = Vec(0.0f);
#pragma GCC unroll 20
  for (int i = 0; i < rows + taps - 1; ++i) {
    const Vec in = Vec::load(x + i * pitch);
#pragma GCC unroll 8
    for (int r = 0; r < taps; ++r)
      if (i - r >= 0 && i - r < rows) sum[r] = fma(in, g[i - r], sum[r]);
  }
  if (valid == Vec::lanes) {
    for (int r = 0; r < taps; ++r) (Vec::load(gradient + r * stride) + sum[r]).store(gradient + r * stride);
  } else {  // lanes past the end of the line may hold anything
    for (int r = 0; r < taps; ++r) (Vec::load(gradient + r * stride) + sum[r]).store(gradient + r * stride, valid);
  }
}

template <int rows, int taps>
static inline const Run* accumulate_runs(const Run* run, const Run* end, const float* x, int64_t pitch,
                                         const Vec (&g)[rows], float* gradient, int64_t stride, int valid) {
  do {
    accumulate_run<rows, taps>(x + run->source, pitch, g, gradient + run->tap * stride, stride, valid);
  } while (++run < end && run->taps == taps);
  return run;
}

// `last` lanes of the last column are results.
template <int rows, bool channels>
static void accumulate_rows(const Plane& p, const float* source, const float* result, float* gradient, int last,
                            Ahead& ahead) {
  const int64_t pitch = p.source_pitch, stride = channels ? p.vectors * Vec::lanes : Vec::lanes;
  for (int64_t column = 0; column < p.columns; ++column) {
    const int valid = column + 1 < p.columns ? Vec::lanes : last;
    for (int64_t v = 0; v < (channels ? p.vectors : 1); ++v) {
      ahead.step();
      const float* x = source + column * p.source_column + v * Vec::lanes;
      Vec g[rows];
      for (int i = 0; i < rows; ++i)
        g[i] = Vec::load(result + i * p.result_pitch + column * p.result_column + v * Vec::lanes);
      const Run *run = p.runs, *end = run + p.run_count;
      float* to = gradient + v * Vec::lanes;
      while (run < end) {
        switch (run->taps) {
          case 1: run = accumulate_runs<rows, 1>(run, end, x, pitch, g, to, stride, valid); break;
          case 2: run = accumulate_runs<rows, 2>(run, end, x, pitch, g, to, stride, valid); break;
          case 3: run = accumulate_runs<rows, 3>(run, end, x, pitch, g, to, stride, valid); break;
          case 4: run = accumulate_runs<rows, 4>(run, end, x, pitch, g, to, stride, valid); break;
          case 5: run = accumulate_runs<rows, 5>(run, end, x, pitch, g, to, stride, valid); break;
          case 6: run = accumulate_runs<rows, 6>(run, end, x, pitch, g, to, stride, valid); break;
          case 7: run = accumulate_runs<rows, 7>(run, end, x, pitch, g, to, stride, valid); break;
        }
      }
    }
  }
}

// Calls body(first row, rows) over blocks of nearly equal height, at most `most`.
template <class Body>
static inline void for_each_block(int64_t rows, int64_t most, const Body& body) {
  const int64_t blocks = (rows + most - 1) / most;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t first = rows * b / blocks;
    body(first, rows * (b + 1) / blocks - first);
  }
}

using CorrelateRows = void (*)(const Plane&, const float*, const float*, float*, Ahead&);
using AccumulateRows = void (*)(const Plane&, const float*, const float*, float*, int, Ahead&);

template <bool channels>
static inline void correlate(const Plane& p, int64_t block_rows, const float* source, const float* weight,
                             float* result, Ahead& ahead) {
  static constexpr CorrelateRows kernel[14] = {
      correlate_rows<1, channels>,  correlate_rows<2, channels>,  correlate_rows<3, channels>,
      correlate_rows<4, channels>,  correlate_rows<5, channels>,  correlate_rows<6, channels>,
      correlate_rows<7, channels>,  correlate_rows<8, channels>,  correlate_rows<9, channels>,
      correlate_rows<10, channels>, correlate_rows<11, channels>, correlate_rows<12, channels>,
      correlate_rows<13, channels>, correlate_rows<14, channels>,
  };
  for_each_block(p.rows, block_rows, [&](int64_t first, int64_t rows) {
    kernel[rows - 1](p, source + first * p.source_pitch, weight, result + first * p.result_pitch, ahead);
  });
}

template <bool channels>
static inline void accumulate(const Plane& p, int64_t block_rows, const float* source, const float* result,
                              float* gradient, int last, Ahead& ahead) {
  static constexpr AccumulateRows kernel[14] = {
      accumulate_rows<1, channels>,  accumulate_rows<2, channels>,  accumulate_rows<3, channels>,
      accumulate_rows<4, channels>,  accumulate_rows<5, channels>,  accumulate_rows<6, channels>,
      accumulate_rows<7, channels>,  accumulate_rows<8, channels>,  accumulate_rows<9, channels>,
      accumulate_rows<10, channels>, accumulate_rows<11, channels>, accumulate_rows<12, channels>,
      accumulate_rows<13, channels>, accumulate_rows<14, channels>,
  };
  for_each_block(p.rows, block_rows, [&](int64_t first, int64_t rows) {
    kernel[rows - 1](p, source + first * p.source_pitch, result + first * p.result_pitch, gradient, last, ahead);
  });
}

}  // namespace accelops::ACCELOPS_ISA
