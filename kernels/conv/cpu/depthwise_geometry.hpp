// The index arithmetic of a depthwise convolution, the same for fprop, dgrad, wgrad and for transposed ones.
//
// A convolution ties a small side (the output; a transposed one's input) to a large one: large = small * stride -
// padding + tap * dilation. A result on the small side gathers with that stride from the large one. A result on the
// large side falls into one stride-1 convolution per residue of (large + padding) mod stride, each with every stride-th
// tap, in reverse. Either way, per dimension: result out_first + j * out_step gathers from source + j * source_step + i
// * reach over its taps tap_first + i * tap_step. That is an Axis; three of them are a Sweep.
#pragma once

#include "conv/cpu/integers.hpp"
#include "conv/problem.hpp"

namespace accelops::ACCELOPS_ISA {

struct Axis {
  int64_t results, out_first, out_step;
  int64_t source, source_step;
  int64_t taps, tap_first, tap_step, reach;
};

// Half-open ranges of tensor indices, per dimension.
struct Window {
  int64_t lo[3], hi[3];
};

static inline int64_t round_up(int64_t a, int64_t to) {
  return ceil_div(a, to) * to;
}
static inline int64_t gcd(int64_t a, int64_t b) {
  return b == 0 ? a : gcd(b, a % b);
}

static inline const int64_t* small_side(const ConvProblem& p) {
  return p.transposed ? p.in : p.out;
}
static inline const int64_t* large_side(const ConvProblem& p) {
  return p.transposed ? p.out : p.in;
}
static inline int64_t tap_count(const ConvProblem& p) {
  return p.kernel[0] * p.kernel[1] * p.kernel[2];
}
static inline int64_t volume(const int64_t* size) {
  return size[0] * size[1] * size[2];
}

static inline Axis axis_to_small(const ConvProblem& p, int d) {
  return {small_side(p)[d], 0, 1, -p.padding[d], p.stride[d], p.kernel[d], 0, 1, p.dilation[d]};
}

// The results of the large side whose (index + padding) mod stride is `residue`.
static inline Axis axis_to_large(const ConvProblem& p, int d, int64_t residue) {
  const int64_t stride = p.stride[d], padding = p.padding[d], dilation = p.dilation[d];
  const int64_t first = most(0, ceil_div(padding - residue, stride));
  const int64_t end = ceil_div(large_side(p)[d] + padding - residue, stride);
  Axis axis{most(0, end - first), residue + stride * first - padding, stride, first, 1, 0, 0, 0, 1};
  const int64_t divisor = gcd(dilation, stride), every = stride / divisor;
  for (int64_t tap = 0; tap < least(every, p.kernel[d]); ++tap) {
    if (tap * dilation % stride != residue) continue;
    axis.taps = ceil_div(p.kernel[d] - tap, every);
    axis.tap_first = tap + (axis.taps - 1) * every;
    axis.tap_step = -every;
    axis.reach = dilation / divisor;
    axis.source = first - (axis.tap_first * dilation - residue) / stride;
  }
  return axis;
}

// The j of the results that lie in [lo, hi).
struct Span {
  int64_t begin, end;
};
static inline Span results_in(const Axis& a, int64_t lo, int64_t hi) {
  return {most(0, ceil_div(lo - a.out_first, a.out_step)),
          least(a.results, ceil_div(hi - a.out_first, a.out_step))};
}

struct Sweep {
  Axis axis[3];
  int64_t first_run, runs;  // its share of the plan's Runs

  // Extends `window` to the source indices that the results in `box` gather from.
  void extend(const Window& box, Window& window) const {
    Window mine;
    for (int d = 0; d < 3; ++d) {
      const Span j = results_in(axis[d], box.lo[d], box.hi[d]);
      if (j.begin >= j.end || axis[d].taps == 0) return;
      mine.lo[d] = axis[d].source + j.begin * axis[d].source_step;
      mine.hi[d] = axis[d].source + (j.end - 1) * axis[d].source_step + (axis[d].taps - 1) * axis[d].reach + 1;
    }
    const bool first = window.lo[0] >= window.hi[0];
    for (int d = 0; d < 3; ++d) {
      window.lo[d] = first ? mine.lo[d] : least(window.lo[d], mine.lo[d]);
      window.hi[d] = first ? mine.hi[d] : most(window.hi[d], mine.hi[d]);
    }
  }
};

}  // namespace accelops::ACCELOPS_ISA
