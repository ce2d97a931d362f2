// Which pixels a grouped convolution connects, as planes and offsets.
//
// Both directions gather: a result pixel ("target") sums over taps of one "source" pixel each. Split by phase (the pixel
// number modulo the stride) the connection is a plain shift: target point i takes source point i + shift.
//   fprop: target o, source o * stride - padding + r * dilation: the source has `stride` phases, the target one
//   dgrad: target i, source (i + padding - r * dilation) / stride where that divides: the target has the phases
// A band of target points along the first dimension that has more than one is worked on at a time, so that the planes
// of one group stay in the cache.
#pragma once

#include "conv/cpu/grouped_planes.hpp"
#include "conv/cpu/scratch.hpp"

namespace accelops::ACCELOPS_ISA {

// `count` things in blocks of nearly equal size, at most `most_each`.
struct Blocks {
  int64_t count, blocks;
  Blocks(int64_t count, int64_t most_each) : count(count), blocks(ceil_div(count, most_each)) {}
  int64_t begin(int64_t i) const { return count * i / blocks; }
};

struct Link {
  bool connected;
  int64_t source_phase, shift;
};

static inline Link link(const ConvProblem& p, bool to_input, int d, int64_t r, int64_t target_phase) {
  if (to_input) {
    const int64_t distance = target_phase + p.padding[d] - r * p.dilation[d];
    const int64_t shift = floor_div(distance, p.stride[d]);
    return {distance == shift * p.stride[d], 0, shift};
  }
  const int64_t distance = r * p.dilation[d] - p.padding[d], shift = floor_div(distance, p.stride[d]);
  return {true, distance - shift * p.stride[d], shift};
}

class Geometry {
 public:
  const ConvProblem& p;
  const bool to_input;
  const int64_t source_channels, target_channels;  // per group
  const int64_t *source_size, *target_size;
  int64_t source_phases[3], target_phases[3], source_planes, phases;  // the last two: over all dimensions
  int64_t low[3], extent[3];                                          // least shift; staged points of a band
  int64_t plane;                                                      // floats from plane to plane
  int split;                                                          // the dimension that is cut into bands
  int64_t band, bands;

  // source_bytes, target_bytes: of scratch per point, over all phases.
  Geometry(const ConvProblem& problem, bool to_input, int64_t source_bytes, int64_t target_bytes, int64_t band_bytes)
      : p(problem),
        to_input(to_input),
        source_channels((to_input ? p.out_channels : p.in_channels) / p.groups),
        target_channels((to_input ? p.in_channels : p.out_channels) / p.groups),
        source_size(to_input ? p.out : p.in),
        target_size(to_input ? p.in : p.out) {
    int64_t reach[3];
    for (int d = 0; d < 3; ++d) {
      source_phases[d] = to_input ? 1 : p.stride[d];
      target_phases[d] = to_input ? p.stride[d] : 1;
      reach[d] = shifts(d);
      extent[d] = ceil_div(target_size[d], target_phases[d]) + reach[d];
    }
    source_planes = source_phases[0] * source_phases[1] * source_phases[2];
    phases = target_phases[0] * target_phases[1] * target_phases[2];
    split = extent[0] > 1 + reach[0] ? 0 : extent[1] > 1 + reach[1] ? 1 : 2;
    cut(reach[split], source_bytes * source_planes, target_bytes, band_bytes);
    plane = (extent[0] * extent[1] * extent[2] / Vec::lanes + 2) * Vec::lanes;
    if (plane % 1024 == 0) plane += Vec::lanes;  // planes 4 KiB apart would share their sets of the L1 cache
  }

  // The offsets into the source planes of one group, by [channel][tap], that the taps of a target phase read; and which
  // taps these are. Returns how many taps.
  int64_t taps_of(int64_t phase, int64_t* offset, int64_t* tap) const {
    int64_t at[3], taps = 0;
    split_phase(phase, target_phases, at);
    for (int64_t t = 0; t < p.kernel[0]; ++t) {
      for (int64_t r = 0; r < p.kernel[1]; ++r) {
        for (int64_t s = 0; s < p.kernel[2]; ++s) {
          const Link l[3] = {link(p, to_input, 0, t, at[0]), link(p, to_input, 1, r, at[1]), link(p, to_input, 2, s, at[2])};
          if (!(l[0].connected && l[1].connected && l[2].connected)) continue;
          tap[taps] = (t * p.kernel[1] + r) * p.kernel[2] + s;
          const int64_t source = (l[0].source_phase * source_phases[1] + l[1].source_phase) * source_phases[2] + l[2].source_phase;
          offset[taps++] = source * plane + ((l[0].shift - low[0]) * extent[1] + l[1].shift - low[1]) * extent[2] + l[2].shift - low[2];
        }
      }
    }
    for (int64_t c = source_channels - 1; c >= 0; --c)
      for (int64_t t = 0; t < taps; ++t) offset[c * taps + t] = offset[t] + c * source_planes * plane;
    return taps;
  }

  // Of a phase: where its points of band `b` stand in the target, how many they are in each dimension, and as one vector.
  Lattice target(int64_t phase, int64_t b, int64_t (&count)[3], int64_t& points) const {
    Lattice l;
    split_phase(phase, target_phases, l.start);
    for (int d = 0; d < 3; ++d) {
      l.step[d] = target_phases[d], l.extent[d] = extent[d];
      count[d] = ceil_div(target_size[d] - l.start[d], l.step[d]);
      if (d == split) count[d] = least(band, count[d] - b * band), l.start[d] += b * band * l.step[d];
    }
    const bool any = count[0] > 0 && count[1] > 0 && count[2] > 0;
    points = any ? ((count[0] - 1) * extent[1] + count[1] - 1) * extent[2] + count[2] : 0;
    return l;
  }

  // The source pixels of a source phase that band `b` may read.
  Lattice source(int64_t phase, int64_t b) const {
    Lattice l;
    split_phase(phase, source_phases, l.start);
    for (int d = 0; d < 3; ++d) {
      l.step[d] = source_phases[d], l.extent[d] = extent[d];
      l.start[d] += (low[d] + (d == split ? b * band : 0)) * l.step[d];
    }
    return l;
  }

 private:
  static void split_phase(int64_t phase, const int64_t (&phases)[3], int64_t (&at)[3]) {
    for (int d = 2; d >= 0; --d) at[d] = phase % phases[d], phase /= phases[d];
  }

  // Sets low[d] to the least shift of any tap and phase; returns the greatest, counted from there.
  int64_t shifts(int d) {
    bool any = false;
    int64_t high = low[d] = 0;
    for (int64_t phase = 0; phase < target_phases[d]; ++phase) {
      for (int64_t r = 0; r < p.kernel[d]; ++r) {
        const Link l = link(p, to_input, d, r, phase);
        if (!l.connected) continue;
        low[d] = any ? least(low[d], l.shift) : l.shift, high = any ? most(high, l.shift) : l.shift;
        any = true;
      }
    }
    return high - low[d];
  }

  // The widest band whose scratch takes at most band_bytes; not so narrow that most of what is staged would be the overlap
  // of bands.
  void cut(int64_t reach, int64_t source_bytes, int64_t target_bytes, int64_t band_bytes) {
    const int64_t points = extent[split] - reach;
    int64_t slice = 1;
    for (int d = 0; d < 3; ++d) slice *= d == split ? 1 : most(1, extent[d]);
    band = (band_bytes / slice - source_bytes * reach) / (source_bytes + target_bytes);
    band = most(1, least(points, most(band, 2 * reach)));
    bands = ceil_div(points, band);
    band = bands > 0 ? ceil_div(points, bands) : 1;
    extent[split] = band + reach;
  }
};

}  // namespace accelops::ACCELOPS_ISA
