// How one depthwise convolution is cut: into tasks of one image, one block of channels and one box of results, whose
// inputs and results fit the scratch of a thread; and its taps into the Runs that the engine takes.
//
// Where a line is all there is (1D), the rows of the engine are successive vectors of it, so that taps Vec::lanes apart
// make a run: k=31 then costs 17 loads per 31 multiply-adds instead of one each.
#pragma once

#include "conv/cpu/depthwise_engine.hpp"
#include "conv/cpu/depthwise_staging.hpp"
#include "conv/cpu/scratch.hpp"

namespace accelops::ACCELOPS_ISA {

// The meaning of ConvTiles for this family; depthwise.py's Config has the same fields.
struct DepthwiseTiles {
  int64_t block_rows;  // result rows in registers
  int64_t vectors;     // vectors of channels per block where lanes run over channels
  int64_t cache_kib;   // what a box may touch
  bool over_channels;  // lanes run over channels in contiguous tensors too, whose lines are transposed in staging
};

struct Task {
  int64_t n, block, box;
};

// A plane of a box: offsets into the staged source and into the results, and the results of one line.
struct Piece {
  Plane plane;
  int64_t from, to, per_line;
};

class DepthwisePlan;

// Where a thread is: the box it works on and its pieces, made anew only when the box changes.
class Place {
 public:
  explicit Place(const DepthwisePlan& plan);
  void go(int64_t index);

  Window box, window;
  Scratch<Piece> pieces;
  int64_t piece_count = 0;

 private:
  const DepthwisePlan& plan;
  int64_t index = -1;
};

class DepthwisePlan {
 public:
  DepthwisePlan(const ConvProblem& p, const ConvTiles& t, bool to_small)
      : tiles{least(t.value[0], kBlockRows), t.value[1], t.value[2], t.value[3] != 0},
        channels(p.channels_last || t.value[3]),
        lanes(channels ? least(tiles.vectors, ceil_div(p.in_channels, Vec::lanes)) * Vec::lanes : 1),
        to_small(to_small),
        source_size(to_small ? large_side(p) : small_side(p)),
        result_size(to_small ? small_side(p) : large_side(p)),
        folded(!channels && result_size[0] == 1 && result_size[1] == 1),
        p(p),
        sweep_count(to_small ? 1 : volume(p.stride)),
        sweeps(sweep_count),
        runs(tap_count(p)),
        order(tap_count(p)) {
    choose_box();
    int64_t residue[3];
    for (int64_t s = 0; s < sweep_count; ++s) {
      residue[0] = s / (p.stride[1] * p.stride[2]), residue[1] = s / p.stride[2] % p.stride[1],
      residue[2] = s % p.stride[2];
      for (int d = 0; d < 3; ++d) sweeps[s].axis[d] = to_small ? axis_to_small(p, d) : axis_to_large(p, d, residue[d]);
      add_runs(sweeps[s]);
    }
  }

  const DepthwiseTiles tiles;
  const bool channels;  // lanes run over channels
  const int64_t lanes;  // channels per block
  const bool to_small;  // results on the small side
  const int64_t *source_size, *result_size;
  const bool folded;  // the rows of the engine are vectors of one line
  Layout source, result;

  int64_t channel_blocks() const { return ceil_div(p.in_channels, lanes); }
  int64_t boxes() const { return volume(box_count); }
  int64_t line() const { return most(box[2], source_extent(2)) + most(p.stride[2], Vec::lanes); }
  int64_t packed(int64_t tap) const { return order[tap]; }

  bool margins() const { return box_count[2] > 1; }
  int64_t result_elements() const { return volume(box); }
  int64_t source_elements() const {
    int64_t n = 1;
    for (int d = 0; d < 3; ++d) n *= least(source_extent(d), source_size[d]);
    return n;
  }

  // The task whose memory is fetched while `index` is computed, and how many cache lines of a tensor per column of it.
  int64_t next(int64_t index) const { return index + (p.channels_last ? channel_blocks() : 1); }
  int64_t lines_ahead(int64_t elements, int64_t element_size) const {
    const int64_t vectors = ceil_div(box[2], Vec::lanes);
    const int64_t steps = folded
                              ? ceil_div(vectors, tiles.block_rows)
                              : ceil_div(box[1], tiles.block_rows) * (channels ? box[2] * lanes / Vec::lanes : vectors);
    return ceil_div(elements * lanes * element_size, 64 * box[0] * steps);
  }

  // Tasks in the order of memory: what one reads adjoins what the last one read.
  Task task(int64_t index) const {
    const int64_t b = boxes(), k = channel_blocks();
    if (p.channels_last) return {index / (k * b), index % k, index / k % b};
    return {index / (k * b), index / b % k, index % b};
  }
  Window box_at(int64_t index) const {
    const int64_t at[3] = {index / (box_count[1] * box_count[2]), index / box_count[2] % box_count[1],
                           index % box_count[2]};
    Window w;
    for (int d = 0; d < 3; ++d) w.lo[d] = at[d] * box[d], w.hi[d] = least(w.lo[d] + box[d], result_size[d]);
    return w;
  }
  // What the results in a box gather from; may reach past the tensor, where it is zero.
  Window window_of(const Window& box) const {
    Window w{};
    for (int64_t s = 0; s < sweep_count; ++s) sweeps[s].extend(box, w);
    return w;
  }

  int64_t most_pieces() const { return sweep_count * box[0]; }

  // The planes of a box; returns how many.
  int64_t cut(const Window& box, const Window& window, Piece* pieces) const {
    int64_t count = 0;
    for (int64_t s = 0; s < sweep_count; ++s) {
      const Axis* a = sweeps[s].axis;
      const Span d = results_in(a[0], box.lo[0], box.hi[0]), h = results_in(a[1], box.lo[1], box.hi[1]),
                 w = results_in(a[2], box.lo[2], box.hi[2]);
      if (h.begin >= h.end || w.begin >= w.end) continue;
      const Plane plane = plane_of(sweeps[s], h.end - h.begin, w.end - w.begin);
      for (int64_t j = d.begin; j < d.end; ++j) {
        const int64_t from = plane.run_count == 0 ? 0
                                                  : source.at(a[0].source + j * a[0].source_step - window.lo[0],
                                                              a[1].source + h.begin * a[1].source_step - window.lo[1],
                                                              a[2].source + w.begin * a[2].source_step - window.lo[2]);
        const int64_t to = result.at(a[0].out_first + j * a[0].out_step - box.lo[0],
                                     a[1].out_first + h.begin * a[1].out_step - box.lo[1],
                                     a[2].out_first + w.begin * a[2].out_step - box.lo[2]);
        pieces[count++] = {plane, from, to, w.end - w.begin};
      }
    }
    return count;
  }

 private:
  Plane plane_of(const Sweep& s, int64_t rows, int64_t columns) const {
    const Run* first = static_cast<const Run*>(runs) + s.first_run;
    const int64_t vectors = ceil_div(columns, Vec::lanes);
    if (channels)
      return {first,
              s.runs,
              rows,
              columns,
              lanes / Vec::lanes,
              s.axis[1].source_step * source.row_pitch,
              s.axis[2].source_step * lanes,
              s.axis[1].out_step * result.row_pitch,
              s.axis[2].out_step * lanes};
    if (folded) return {first, s.runs, vectors, 1, 1, Vec::lanes, 0, Vec::lanes, 0};
    return {first,      s.runs,
            rows,       vectors,
            1,          s.axis[1].source_step * source.row_pitch,
            Vec::lanes, s.axis[1].out_step * result.row_pitch,
            Vec::lanes};
  }

  // The most source indices that the results of a box reach.
  int64_t source_extent(int d) const {
    const int64_t reach = p.dilation[d] * (p.kernel[d] - 1);
    return to_small ? (box[d] - 1) * p.stride[d] + reach + 1 : (box[d] - 1 + reach) / p.stride[d] + 2;
  }

  // Bytes of the tensors that the results of a box touch, in fp32: of all channels where those adjoin in memory.
  int64_t footprint() const {
    return (source_elements() + result_elements()) * (p.channels_last ? p.in_channels : lanes) * int64_t(sizeof(float));
  }

  // Halves the box, slices first, then rows, then columns, until it fits the cache, but not below twice the reach of
  // the kernel: what is staged again for the next box stays under half. Then evens the boxes out.
  void choose_box() {
    for (int d = 0; d < 3; ++d) box[d] = most(1, result_size[d]);
    for (int d = 0; d < 3; ++d) {
      const int64_t reach = p.dilation[d] * (p.kernel[d] - 1);
      const int64_t least = most(d == 2 ? 256 : 1, to_small ? 2 * reach / p.stride[d] : 2 * reach);
      while (box[d] > least && footprint() > tiles.cache_kib * 1024) box[d] = ceil_div(box[d], 2);
      box_count[d] = ceil_div(result_size[d], box[d]);
      if (box_count[d] > 0) box[d] = ceil_div(result_size[d], box_count[d]);
    }
    const int64_t extent[3] = {source_extent(0), source_extent(1), source_extent(2)};
    source = channels ? Layout::channels(extent, lanes) : Layout::rows(extent, to_small ? p.stride[2] : 1);
    result = channels ? Layout::channels(box, lanes) : Layout::rows(box, to_small ? 1 : p.stride[2]);
  }

  void add_runs(Sweep& s) {
    s.first_run = run_count;
    const Axis* a = s.axis;
    const int vertical = folded ? 2 : 1, other = folded ? 1 : 2;
    // Taps `every` apart see inputs one result row apart.
    const int64_t pitch = folded ? Vec::lanes * a[2].source_step : a[1].source_step;
    const int64_t every = pitch % a[vertical].reach == 0 ? pitch / a[vertical].reach : a[vertical].taps;
    int64_t i[3];
    // Runs that start at the same tap, and so have the same length, follow each other.
    for (int64_t first = 0; first < least(every, a[vertical].taps); ++first)
      for (i[vertical] = first; i[vertical] < a[vertical].taps; i[vertical] += kRunTaps * every)
        for (i[0] = 0; i[0] < a[0].taps; ++i[0])
          for (i[other] = 0; i[other] < a[other].taps; ++i[other]) add_run(a, i, vertical, every);
    s.runs = run_count - s.first_run;
  }

  void add_run(const Axis* a, const int64_t* first, int vertical, int64_t every) {
    const int64_t taps = least(kRunTaps, ceil_div(a[vertical].taps - first[vertical], every));
    runs[run_count++] = {source.at(first[0] * a[0].reach, first[1] * a[1].reach, first[2] * a[2].reach), tap, taps};
    int64_t i[3] = {first[0], first[1], first[2]};
    for (int64_t k = 0; k < taps; ++k, i[vertical] += every) {
      int64_t index = 0;
      for (int d = 0; d < 3; ++d) index = index * p.kernel[d] + a[d].tap_first + i[d] * a[d].tap_step;
      order[tap++] = index;
    }
  }

  const ConvProblem& p;
  int64_t box[3], box_count[3];
  int64_t sweep_count, run_count = 0, tap = 0;
  Scratch<Sweep> sweeps;
  Scratch<Run> runs;
  Scratch<int64_t> order;  // the weight's tap at each packed place
};

inline Place::Place(const DepthwisePlan& plan) : pieces(plan.most_pieces()), plan(plan) {}

inline void Place::go(int64_t to) {
  if (to == index) return;
  index = to, box = plan.box_at(to), window = plan.window_of(box);
  piece_count = plan.cut(box, window, pieces);
}

}  // namespace accelops::ACCELOPS_ISA
