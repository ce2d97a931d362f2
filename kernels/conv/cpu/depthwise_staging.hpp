// Tensors to and from the fp32 scratch on which the depthwise engine works, so that padding, strides, bf16, memory
// formats, bias and activations are met here only: one load and one store per element beside the K multiply-adds of
// each.
//
// Two arrangements. Rows: a block holds one channel and vector lanes run along the line; lines are split by column
// phase, (index mod phases), so that strided taps are contiguous too. Channels: a block holds `lanes` channels of every
// pixel and vector lanes run over them.
#pragma once

#include "conv/cpu/activation.hpp"
#include "conv/cpu/depthwise_geometry.hpp"

namespace accelops::ACCELOPS_ISA {

constexpr int64_t kMostLanes = 4 * Vec::lanes;  // channels of a block

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
  int64_t i = 0;
  for (; i + Vec::lanes <= n; i += Vec::lanes) Vec(0.0f).store(to + i);
  if (i < n) Vec(0.0f).store(to + i, static_cast<int>(n - i));
}

// Splits a line into its phases, and joins them again; apart for two phases, which compilers vectorise.
static inline void split(const float* line, int64_t count, int64_t phases, int64_t pitch, float* to) {
  if (phases == 2) {
    for (int64_t k = 0; k < count; ++k) to[k] = line[2 * k], to[pitch + k] = line[2 * k + 1];
    return;
  }
  for (int64_t phase = 0; phase < phases; ++phase)
    for (int64_t k = 0; k < count; ++k) to[phase * pitch + k] = line[phases * k + phase];
}
static inline void join(const float* from, int64_t count, int64_t phases, int64_t pitch, float* line) {
  if (phases == 2) {
    for (int64_t k = 0; k < count; ++k) line[2 * k] = from[k], line[2 * k + 1] = from[pitch + k];
    return;
  }
  for (int64_t phase = 0; phase < phases; ++phase)
    for (int64_t k = 0; k < count; ++k) line[phases * k + phase] = from[phase * pitch + k];
}

// Where the memory of a window begins: of channel c or, where channels are last and so a window is one piece of memory
// with all of them, the share of those from c on.
template <class T>
static inline const char* first_byte(const T* data, bool last, int64_t channels, const int64_t* size, int64_t n,
                                     int64_t c, const Window& w) {
  const int64_t row = size[2] * (last ? channels : 1), image = last ? n : n * channels + c;
  const int64_t d = most(w.lo[0], 0), h = most(w.lo[1], 0), h_end = least(w.hi[1], size[1]);
  const int64_t share = last ? (h_end - h) * row * c / channels : 0;
  return reinterpret_cast<const char*>(data + ((image * size[0] + d) * size[1] + h) * row + share);
}

// A tensor to stage; `saved` (null for none) gives the activation's slope to multiply it by.
template <class T>
struct Source {
  const T* data;
  const T* saved;
  Activation activation;
  int64_t channels, size[3];
  bool channels_last;
  float* line;  // room for one line

  // `count` pieces of n consecutive elements, `stride` apart from index i on, to pieces `to_stride` apart.
  void copy(int64_t i, int64_t n, int64_t count, int64_t stride, float* to, int64_t to_stride) const {
    saved ? copy<true>(i, n, count, stride, to, to_stride) : copy<false>(i, n, count, stride, to, to_stride);
  }

  template <bool sloped>
  void copy(int64_t i, int64_t n, int64_t count, int64_t stride, float* to, int64_t to_stride) const {
    const T *from = data + i, *at = sloped ? saved + i : nullptr;
    int64_t k = 0;
    for (; k + Vec::lanes <= n; k += Vec::lanes) {
      for (int64_t x = 0; x < count; ++x) {
        const Vec v = Vec::load(from + x * stride + k);
        (sloped ? v * slope(activation, Vec::load(at + x * stride + k)) : v).store(to + x * to_stride + k);
      }
    }
    if (k == n) return;
    const int rest = static_cast<int>(n - k);
    for (int64_t x = 0; x < count; ++x) {
      const Vec v = Vec::load(from + x * stride + k, rest);
      (sloped ? v * slope(activation, Vec::load(at + x * stride + k, rest)) : v).store(to + x * to_stride + k, rest);
    }
  }

  // The window of channels [c, c + layout.lanes) of image n, zero outside the tensor. Margins beside the lines are left
  // as they are: they are zero from the start, unless `margins` says that the last window had others.
  void stage(int64_t n, int64_t c, const Window& w, const Layout& layout, bool margins, float* to) const {
    const int64_t lo = least(most(w.lo[2], 0), w.hi[2]), hi = most(lo, least(w.hi[2], size[2]));
    for (int64_t d = w.lo[0]; d < w.hi[0]; ++d) {
      for (int64_t h = w.lo[1]; h < w.hi[1]; ++h) {
        float* row = to + (d - w.lo[0]) * layout.slice_pitch + (h - w.lo[1]) * layout.row_pitch;
        const bool outside = d < 0 || d >= size[0] || h < 0 || h >= size[1];
        if (outside || margins) zero(row, layout.row_pitch);
        if (outside) continue;
        const int64_t present = least(layout.lanes, channels - c);
        if (layout.lanes > 1 && channels_last) {
          const int64_t first = (((n * size[0] + d) * size[1] + h) * size[2] + lo) * channels + c;
          copy(first, present, hi - lo, channels, row + (lo - w.lo[2]) * layout.lanes, layout.lanes);
        } else {
          const int64_t first = (((n * channels + c) * size[0] + d) * size[1] + h) * size[2] + lo;
          if (layout.lanes > 1) stage_lines(first, hi - lo, present, layout.lanes, row + (lo - w.lo[2]) * layout.lanes);
          else stage_line(first, hi - lo, lo - w.lo[2], layout, row);
        }
      }
    }
  }

  // The same line of `present` channels, each in a plane of its own, side by side.
  void stage_lines(int64_t first, int64_t count, int64_t present, int64_t lanes, float* to) const {
    const int64_t plane = volume(size);
    for (int64_t c = 0; c < present; c += Vec::lanes) {
      for (int64_t x = 0; x < count; x += Vec::lanes) {
        const int n = static_cast<int>(least(Vec::lanes, count - x));
        Vec rows[Vec::lanes];
        for (int k = 0; k < Vec::lanes; ++k) {
          const int64_t i = first + least(c + k, present - 1) * plane + x;
          rows[k] = Vec::load(data + i, n);
          if (saved) rows[k] = rows[k] * slope(activation, Vec::load(saved + i, n));
        }
        transpose(rows);
#pragma GCC unroll 16
        for (int k = 0; k < Vec::lanes; ++k)
          if (k < n) rows[k].store(to + (x + k) * lanes + c);
      }
    }
  }

  void stage_line(int64_t first, int64_t count, int64_t margin, const Layout& layout, float* row) const {
    if (layout.phases == 1) return copy(first, count, 1, 0, row + margin, 0);
    const int64_t length = layout.phase_pitch - Vec::lanes;
    zero(line, margin);
    copy(first, count, 1, 0, line + margin, 0);
    zero(line + margin + count, length * layout.phases - margin - count);
    split(line, length, layout.phases, layout.phase_pitch, row);
  }
};

template <class T>
static inline Source<T> source_of(const ConvProblem& p, const void* data, const void* saved, const int64_t* size,
                                  float* line) {
  const T* at = p.activation == Activation::none ? nullptr : static_cast<const T*>(saved);
  const auto* from = static_cast<const T*>(data);
  return {from, at, p.activation, p.in_channels, {size[0], size[1], size[2]}, p.channels_last, line};
}

// Where results go: bias is added, then the activation taken; `saved` (null for none) receives what came before it.
template <class T>
struct Sink {
  T* data;
  T* saved;
  const T* bias;
  Activation activation;
  int64_t channels, size[3];
  bool channels_last;
  float* line;

  // The bias of the channels from c on, zero where there is none.
  struct Bias {
    float value[kMostLanes];
  };
  Bias bias_from(int64_t c) const {
    Bias b{};
    for (int64_t k = 0; bias && k < least(kMostLanes, channels - c); ++k) b.value[k] = to_float(bias[c + k]);
    return b;
  }

  // `count` pieces of n elements, `from_stride` apart, to pieces `stride` apart from index i on. The bias is one for
  // all, or (lanes over channels) one for each element of a piece.
  template <bool plain, bool channelwise>
  void copy(const float* from, int64_t from_stride, const float* b, int64_t i, int64_t n, int64_t count,
            int64_t stride) const {
    int64_t k = 0;
    for (; k + Vec::lanes <= n; k += Vec::lanes) {
      const Vec add = channelwise ? Vec::load(b + k) : Vec(*b);
      for (int64_t x = 0; x < count; ++x) {
        const Vec z = Vec::load(from + x * from_stride + k) + add;
        if (!plain && saved) z.store(saved + i + x * stride + k);
        (plain ? z : activate(activation, z)).store(data + i + x * stride + k);
      }
    }
    if (k == n) return;
    const Vec add = channelwise ? Vec::load(b + k) : Vec(*b);
    const int rest = static_cast<int>(n - k);
    for (int64_t x = 0; x < count; ++x) {
      const Vec z = Vec::load(from + x * from_stride + k) + add;
      if (!plain && saved) z.store(saved + i + x * stride + k, rest);
      (plain ? z : activate(activation, z)).store(data + i + x * stride + k, rest);
    }
  }
  template <bool channelwise>
  void copy(const float* from, int64_t from_stride, const float* b, int64_t i, int64_t n, int64_t count,
            int64_t stride) const {
    if (activation == Activation::none && !saved) copy<true, channelwise>(from, from_stride, b, i, n, count, stride);
    else copy<false, channelwise>(from, from_stride, b, i, n, count, stride);
  }

  // The inverse of Source::stage_lines.
  void unstage_lines(const float* from, int64_t lanes, const float* b, int64_t first, int64_t present,
                     int64_t count) const {
    const int64_t plane = volume(size);
    for (int64_t c = 0; c < present; c += Vec::lanes) {
      const int channels_here = static_cast<int>(least(Vec::lanes, present - c));
      const Vec add = Vec::load(b + c);
      for (int64_t x = 0; x < count; x += Vec::lanes) {
        const int n = static_cast<int>(least(Vec::lanes, count - x));
        Vec rows[Vec::lanes];
        for (int k = 0; k < Vec::lanes; ++k) rows[k] = Vec::load(from + least(x + k, count - 1) * lanes + c) + add;
        transpose(rows);
#pragma GCC unroll 16
        for (int k = 0; k < Vec::lanes; ++k) {
          const int64_t i = first + (c + k) * plane + x;
          if (k < channels_here && saved) rows[k].store(saved + i, n);
          if (k < channels_here) activate(activation, rows[k]).store(data + i, n);
        }
      }
    }
  }

  // Writes the window of channels [c, c + layout.lanes) of image n.
  void unstage(int64_t n, int64_t c, const Window& w, const Layout& layout, const float* from) const {
    const int64_t columns = w.hi[2] - w.lo[2], present = least(layout.lanes, channels - c);
    const Bias of_block = bias_from(c);
    const float* b = of_block.value;
    for (int64_t d = w.lo[0]; d < w.hi[0]; ++d) {
      for (int64_t h = w.lo[1]; h < w.hi[1]; ++h) {
        const float* row = from + (d - w.lo[0]) * layout.slice_pitch + (h - w.lo[1]) * layout.row_pitch;
        if (layout.lanes > 1 && channels_last) {
          const int64_t to = (((n * size[0] + d) * size[1] + h) * size[2] + w.lo[2]) * channels + c;
          copy<true>(row, layout.lanes, b, to, present, columns, channels);
        } else if (layout.lanes > 1) {
          unstage_lines(row, layout.lanes, b, (((n * channels + c) * size[0] + d) * size[1] + h) * size[2] + w.lo[2],
                        present, columns);
        } else {
          if (layout.phases > 1)
            join(row, ceil_div(columns, layout.phases), layout.phases, layout.phase_pitch, line), row = line;
          copy<false>(row, 0, b, (((n * channels + c) * size[0] + d) * size[1] + h) * size[2] + w.lo[2], columns, 1, 0);
        }
      }
    }
  }
};

template <class T>
static inline Sink<T> sink_of(const ConvProblem& p, const ConvOperands& o, const int64_t* size, float* line) {
  Sink<T> sink{};
  sink.channels = p.in_channels, sink.channels_last = p.channels_last, sink.line = line;
  for (int d = 0; d < 3; ++d) sink.size[d] = size[d];
  if (p.direction == Direction::dgrad) return sink.data = static_cast<T*>(o.grad_input), sink;
  sink.data = static_cast<T*>(o.output), sink.saved = static_cast<T*>(o.output_saved), sink.activation = p.activation;
  if (p.bias) sink.bias = static_cast<const T*>(o.bias);
  return sink;
}

}  // namespace accelops::ACCELOPS_ISA
