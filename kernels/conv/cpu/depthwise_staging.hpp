// Tensors to and from the fp32 scratch on which the depthwise engine works, so that padding, strides, bf16, memory formats,
// bias and activations are met here only: one load and one store per element beside the K multiply-adds of each.
//
// Two arrangements. Rows: a block holds one channel and vector lanes run along the line; lines are split by column phase,
// (index mod phases), so that strided taps are contiguous too. Channels: a block holds `lanes` channels of every pixel and
// vector lanes run over them.
#pragma once

#include "conv/cpu/activation.hpp"
#include "conv/cpu/depthwise_geometry.hpp"

namespace accelops::ACCELOPS_ISA {

struct Layout {
  int64_t lanes;  // channels side by side: 1 for rows
  int64_t phases, phase_pitch, row_pitch, slice_pitch, size;

  // For windows of up to these sizes. Vectors may run up to Vec::lanes past the end of a line of rows.
  static Layout rows(const int64_t* extent, int64_t phases) {
    const int64_t phase_pitch = ceil_div(extent[2], phases) + Vec::lanes, row_pitch = phases * phase_pitch;
    return {1, phases, phase_pitch, row_pitch, extent[1] * row_pitch, volume_of(extent, row_pitch)};
  }
  // An odd number of vectors per row: rows a multiple of 4 KiB apart would share one set of the L1 cache.
  static Layout channels(const int64_t* extent, int64_t lanes) {
    const int64_t row_pitch = (extent[2] * lanes / Vec::lanes | 1) * Vec::lanes;
    return {lanes, 1, 0, row_pitch, extent[1] * row_pitch, volume_of(extent, row_pitch)};
  }
  static int64_t volume_of(const int64_t* extent, int64_t row_pitch) { return extent[0] * extent[1] * row_pitch; }

  int64_t column(int64_t w) const { return lanes > 1 ? w * lanes : w % phases * phase_pitch + w / phases; }
  int64_t at(int64_t d, int64_t h, int64_t w) const { return d * slice_pitch + h * row_pitch + column(w); }
};

static inline void zero(float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = 0;
}

// What is staged, and what is to be made of it: `saved` (null for none) gives the activation's slope to multiply by.
template <class T>
struct Source {
  const T* data;
  const T* saved;
  Activation activation;
  int64_t channels, size[3];
  float* line;  // room for one line

  Vec load(int64_t i, int n) const {
    const Vec x = Vec::load(data + i, n);
    return saved ? x * slope(activation, Vec::load(saved + i, n)) : x;
  }
  Vec load(int64_t i) const {
    const Vec x = Vec::load(data + i);
    return saved ? x * slope(activation, Vec::load(saved + i)) : x;
  }

  // n consecutive elements from index i.
  void copy(int64_t i, int64_t n, float* to) const {
    int64_t k = 0;
    for (; k + Vec::lanes <= n; k += Vec::lanes) load(i + k).store(to + k);
    if (k < n) load(i + k, static_cast<int>(n - k)).store(to + k, static_cast<int>(n - k));
  }

  // Asks for what stage() will read, so that it arrives while another block is computed.
  void prefetch(int64_t n, int64_t c, const Window& w, const Layout& layout) const {
    const int64_t d_end = smaller(w.hi[0], size[0]), h_end = smaller(w.hi[1], size[1]), w_end = smaller(w.hi[2], size[2]);
    for (int64_t d = larger(w.lo[0], 0); d < d_end; ++d) {
      for (int64_t h = larger(w.lo[1], 0); h < h_end; ++h) {
        const int64_t x = larger(w.lo[2], 0);
        if (layout.lanes > 1) {
          const T* line = data + ((((n * size[0] + d) * size[1] + h) * size[2]) + x) * channels + c;
          for (int64_t k = 0; k < w_end - x; ++k)
            for (int64_t b = 0; b < layout.lanes * int64_t(sizeof(T)); b += 64)
              __builtin_prefetch(reinterpret_cast<const char*>(line + k * channels) + b, 0, 2);
        } else {
          const T* line = data + (((n * channels + c) * size[0] + d) * size[1] + h) * size[2] + x;
          for (int64_t b = 0; b < (w_end - x) * int64_t(sizeof(T)); b += 64)
            __builtin_prefetch(reinterpret_cast<const char*>(line) + b, 0, 2);
        }
      }
    }
  }

  // The window of channels [c, c + layout.lanes) of image n, zero outside the tensor.
  void stage(int64_t n, int64_t c, const Window& w, const Layout& layout, float* to) const {
    for (int64_t d = w.lo[0]; d < w.hi[0]; ++d) {
      for (int64_t h = w.lo[1]; h < w.hi[1]; ++h) {
        float* row = to + (d - w.lo[0]) * layout.slice_pitch + (h - w.lo[1]) * layout.row_pitch;
        if (d < 0 || d >= size[0] || h < 0 || h >= size[1]) {
          zero(row, layout.row_pitch);
        } else if (layout.lanes > 1) {
          stage_pixels(((n * size[0] + d) * size[1] + h) * size[2], c, w, layout, row);
        } else {
          stage_line((((n * channels + c) * size[0] + d) * size[1] + h) * size[2], w, layout, row);
        }
      }
    }
  }

  void stage_line(int64_t first, const Window& w, const Layout& layout, float* row) const {
    const int64_t lo = smaller(larger(w.lo[2], 0), w.hi[2]), hi = larger(lo, smaller(w.hi[2], size[2]));
    if (layout.phases == 1) {
      zero(row, lo - w.lo[2]);
      copy(first + lo, hi - lo, row + (lo - w.lo[2]));
      zero(row + (hi - w.lo[2]), layout.row_pitch - (hi - w.lo[2]));
      return;
    }
    const int64_t length = layout.row_pitch - layout.phases * Vec::lanes;  // phases * elements of a phase
    zero(line, lo - w.lo[2]);
    copy(first + lo, hi - lo, line + (lo - w.lo[2]));
    zero(line + (hi - w.lo[2]), length - (hi - w.lo[2]));
    for (int64_t phase = 0; phase < layout.phases; ++phase) {
      float* part = row + phase * layout.phase_pitch;
      const int64_t count = layout.phase_pitch - Vec::lanes;
      if (layout.phases == 2) {
        for (int64_t k = 0; k < count; ++k) part[k] = line[2 * k + phase];
      } else {
        for (int64_t k = 0; k < count; ++k) part[k] = line[layout.phases * k + phase];
      }
      zero(part + count, Vec::lanes);
    }
  }

  void stage_pixels(int64_t first, int64_t c, const Window& w, const Layout& layout, float* row) const {
    const int64_t lo = smaller(larger(w.lo[2], 0), w.hi[2]), hi = larger(lo, smaller(w.hi[2], size[2]));
    zero(row, (lo - w.lo[2]) * layout.lanes);
    const int64_t count = smaller(layout.lanes, channels - c);
    for (int64_t x = lo; x < hi; ++x) {
      float* to = row + (x - w.lo[2]) * layout.lanes;
      copy((first + x) * channels + c, count, to);
      zero(to + count, layout.lanes - count);
    }
    zero(row + (hi - w.lo[2]) * layout.lanes, layout.row_pitch - (hi - w.lo[2]) * layout.lanes);
  }
};

// Where results go: bias is added, then the activation taken; `saved` (null for none) receives what came before it.
template <class T>
struct Sink {
  T* data;
  T* saved;
  const T* bias;
  Activation activation;
  int64_t channels, size[3];
  float* line;

  void put(Vec z, int64_t i, int n) const {
    if (saved) z.store(saved + i, n);
    activate(activation, z).store(data + i, n);
  }
  void put(Vec z, int64_t i) const {
    if (saved) z.store(saved + i);
    activate(activation, z).store(data + i);
  }

  // Writes the window of channels [c, c + layout.lanes) of image n.
  void unstage(int64_t n, int64_t c, const Window& w, const Layout& layout, const float* from) const {
    for (int64_t d = w.lo[0]; d < w.hi[0]; ++d) {
      for (int64_t h = w.lo[1]; h < w.hi[1]; ++h) {
        const float* row = from + (d - w.lo[0]) * layout.slice_pitch + (h - w.lo[1]) * layout.row_pitch;
        if (layout.lanes > 1) {
          unstage_pixels(((n * size[0] + d) * size[1] + h) * size[2], c, w, layout, row);
        } else {
          unstage_line((((n * channels + c) * size[0] + d) * size[1] + h) * size[2], c, w, layout, row);
        }
      }
    }
  }

  void unstage_line(int64_t first, int64_t c, const Window& w, const Layout& layout, const float* row) const {
    const Vec b(bias ? to_float(bias[c]) : 0.0f);
    const int64_t count = w.hi[2] - w.lo[2];
    if (layout.phases > 1) {
      for (int64_t phase = 0; phase < layout.phases; ++phase) {
        const float* part = row + phase * layout.phase_pitch;
        const int64_t length = ceil_div(count - phase, layout.phases);
        if (layout.phases == 2) {
          for (int64_t k = 0; k < length; ++k) line[2 * k + phase] = part[k];
        } else {
          for (int64_t k = 0; k < length; ++k) line[layout.phases * k + phase] = part[k];
        }
      }
      row = line;
    }
    int64_t k = 0;
    for (; k + Vec::lanes <= count; k += Vec::lanes) put(Vec::load(row + k) + b, first + w.lo[2] + k);
    if (k < count) put(Vec::load(row + k, static_cast<int>(count - k)) + b, first + w.lo[2] + k, static_cast<int>(count - k));
  }

  void unstage_pixels(int64_t first, int64_t c, const Window& w, const Layout& layout, const float* row) const {
    for (int64_t k = 0; k < layout.lanes && c + k < channels; k += Vec::lanes) {
      const int n = static_cast<int>(smaller(Vec::lanes, channels - c - k));
      const Vec b = bias ? Vec::load(bias + c + k, n) : Vec(0.0f);
      for (int64_t x = w.lo[2]; x < w.hi[2]; ++x) {
        const Vec z = Vec::load(row + (x - w.lo[2]) * layout.lanes + k) + b;
        if (n == Vec::lanes) put(z, (first + x) * channels + c + k);
        else put(z, (first + x) * channels + c + k, n);
      }
    }
  }
};

}  // namespace accelops::ACCELOPS_ISA
