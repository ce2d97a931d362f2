// Between tensors and planes. The grouped convolution computes on fp32 planes in scratch, one per channel, in which the
// zero padding is spelled out and the pixels of a strided row lie side by side: `stage` brings a box of a tensor there,
// `unstage` takes a result back. Both memory formats, any step between pixels; a channels_last tensor is transposed on
// the way, `Vec::lanes` pixels by as many channels at a time. The activation's slope is applied while staging a gradient,
// bias and activation while unstaging a result, so that neither costs a pass over memory.
#pragma once

#include "conv/cpu/activation.hpp"
#include "conv/cpu/integers.hpp"
#include "conv/problem.hpp"
#include "vec.hpp"

namespace accelops::ACCELOPS_ISA {

// Lattice point j stands for the pixel start + step * j, 0 <= j < extent (D, H, W); its value stands at
// (j[0] * extent[1] + j[1]) * extent[2] + j[2] of its plane.
struct Lattice {
  int64_t start[3], step[3], extent[3];
};

struct Box {
  int64_t begin[3], end[3];
};

// One image of a tensor, and what is fused into reading or writing it.
template <class T>
struct Image {
  T* data;
  T* saved;           // see ConvOperands; null where there is nothing to read or write
  const float* bias;  // unstage: per channel, or null
  Activation activation;
  int64_t channels, size[3];
  bool channels_last;

  int64_t pixel(const int64_t (&at)[3]) const { return (at[0] * size[1] + at[1]) * size[2] + at[2]; }
  int64_t offset(int64_t channel, int64_t pixel) const {
    return channels_last ? pixel * channels + channel : channel * size[0] * size[1] * size[2] + pixel;
  }
};

// Image n of the input (or its gradient) or of the output (or its gradient).
template <class T>
Image<T> image_of(const ConvProblem& p, const void* tensor, const void* saved, int64_t n, bool output) {
  const int64_t channels = output ? p.out_channels : p.in_channels;
  const int64_t* size = output ? p.out : p.in;
  const int64_t skip = n * channels * size[0] * size[1] * size[2];
  Image<T> i{static_cast<T*>(const_cast<void*>(tensor)) + skip, nullptr, nullptr, p.activation, channels,
             {size[0], size[1], size[2]}, p.channels_last};
  if (saved) i.saved = static_cast<T*>(const_cast<void*>(saved)) + skip;
  return i;
}

// The first lattice point of a dimension whose pixel is at or past `at`, at most `extent`.
static inline int64_t point_at(const Lattice& l, int dimension, int64_t at) {
  return most(0, least(l.extent[dimension], ceil_div(at - l.start[dimension], l.step[dimension])));
}

static inline void fill_zero(float* to, int64_t n) { __builtin_memset(to, 0, n > 0 ? n * sizeof(float) : 0); }

template <class T>
Vec load(const Image<const T>& image, int64_t at, int lanes) {
  const Vec x = Vec::load(image.data + at, lanes);
  return image.saved ? x * slope(image.activation, Vec::load(image.saved + at, lanes)) : x;
}

// to[j] = from[step * j], times the slope where `saved` is given (step is 1 then: gradients are staged densely). This and
// the next function write whole vectors, so up to lanes - 1 floats past n.
template <class T>
void gather_row(const Image<const T>& image, int64_t offset, int64_t step, int64_t n, float* to) {
  const T* from = image.data + offset;
  if (step == 2) {
    int64_t j = 0;
    for (; j + Vec::lanes < n; j += Vec::lanes) even(Vec::load(from + 2 * j), Vec::load(from + 2 * j + Vec::lanes)).store(to + j);
    for (; j < n; ++j) to[j] = to_float(from[2 * j]);
  } else if (step != 1) {
    for (int64_t j = 0; j < n; ++j) to[j] = to_float(from[step * j]);
  } else if (image.saved) {
    for (int64_t j = 0; j < n; j += Vec::lanes)
      load(image, offset + j, static_cast<int>(least(Vec::lanes, n - j))).store(to + j);
  } else {
    int64_t j = 0;
    for (; j + Vec::lanes <= n; j += Vec::lanes) Vec::load(from + j).store(to + j);
    if (j < n) Vec::load(from + j, static_cast<int>(n - j)).store(to + j);
  }
}

// The same for up to Vec::lanes channels of a channels_last row.
template <class T>
void gather_row_transposed(const Image<const T>& image, int64_t offset, int channels, int64_t step, int64_t n, float* to,
                           int64_t plane) {
  for (int64_t j = 0; j < n; j += Vec::lanes, offset += Vec::lanes * step * image.channels) {
    Vec block[Vec::lanes];
    const int64_t pixels = n - j;
#pragma GCC unroll 16
    for (int i = 0; i < Vec::lanes; ++i)
      block[i] = i < pixels ? load(image, offset + i * step * image.channels, channels) : Vec(0.0f);
    transpose(block);
    for (int c = 0; c < channels; ++c) block[c].store(to + c * plane + j);
  }
}

// Asks for the row of n pixels after the one at `offset`. In channels_last, a vector of channels per pixel with pixels apart
// is a pattern that no hardware prefetcher follows: 128 channels in 32 groups at 56, one core, fprop 5.5 to 3.1 ms.
// Always inlined: GCC 12 takes a function that only prefetches for one without effect and drops its calls.
template <bool write, class T>
[[gnu::always_inline]] inline void prefetch_row(const Image<T>& image, int64_t offset, const Lattice& l, int64_t n) {
  const int64_t pixel = image.channels_last ? image.channels : 1, step = image.channels_last ? l.step[2] * pixel : 64 / sizeof(T);
  const int64_t next = offset + l.step[1] * image.size[2] * pixel;
  for (int64_t i = 0; i < n * l.step[2] * pixel; i += step) {
    __builtin_prefetch(image.data + next + i, write);
    if (image.saved) __builtin_prefetch(image.saved + next + i, write);
  }
}

// One row of a plane of up to Vec::lanes channels (contiguous: of one): points begin to end from the image, zero around.
template <class T>
void stage_row(const Image<const T>& image, int64_t offset, int channels, const Lattice& l, int64_t begin, int64_t end, float* to,
               int64_t plane) {
  for (int i = 0; i < channels; ++i) fill_zero(to + i * plane, begin);
  if (begin < end) {
    prefetch_row<false>(image, offset, l, end - begin);
    if (image.channels_last)
      gather_row_transposed(image, offset, channels, l.step[2], end - begin, to + begin, plane);
    else
      gather_row(image, offset, l.step[2], end - begin, to + begin);
  }
  for (int i = 0; i < channels; ++i) fill_zero(to + i * plane + end, l.extent[2] - end);
}

// Writes `channels` planes, `plane` floats apart: the lattice's pixels that lie in `valid`, zero for all others.
// A plane needs Vec::lanes floats of room past its last lattice point. Memory is read in order: channel by channel, or in
// channels_last row by row of all channels.
template <class T>
void stage(const Image<const T>& image, int64_t channel, int64_t channels, const Lattice& l, const Box& valid, float* to,
           int64_t plane) {
  const int64_t first = point_at(l, 2, valid.begin[2]), last = most(first, point_at(l, 2, valid.end[2]));
  const int64_t together = image.channels_last ? channels : 1;
  for (int64_t c = 0; c < channels; c += together) {
    for (int64_t d = 0; d < l.extent[0]; ++d) {
      for (int64_t h = 0; h < l.extent[1]; ++h) {
        const int64_t at[3] = {l.start[0] + l.step[0] * d, l.start[1] + l.step[1] * h, l.start[2] + l.step[2] * first};
        const bool inside = at[0] >= valid.begin[0] && at[0] < valid.end[0] && at[1] >= valid.begin[1] && at[1] < valid.end[1];
        const int64_t begin = inside ? first : l.extent[2], end = inside ? last : l.extent[2];
        float* const row = to + c * plane + (d * l.extent[1] + h) * l.extent[2];
        for (int64_t i = 0; i < together; i += Vec::lanes)
          stage_row(image, image.offset(channel + c + i, image.pixel(at)), static_cast<int>(least(Vec::lanes, together - i)), l,
                    begin, end, row + i * plane, plane);
      }
    }
  }
}

template <class T>
void put(const Image<T>& image, int64_t at, Vec x, int lanes) {
  if (image.saved) x.store(image.saved + at, lanes);
  activate(image.activation, x).store(image.data + at, lanes);
}

// data[step * j] = from[j] + bias, through the activation (step is 1 where there is one).
template <class T>
void scatter_row(const Image<T>& image, int64_t offset, float bias, int64_t step, int64_t n, const float* from) {
  if (step == 1) {
    for (int64_t j = 0; j < n; j += Vec::lanes)
      put(image, offset + j, Vec::load(from + j) + Vec(bias), static_cast<int>(least(Vec::lanes, n - j)));
  } else {
    for (int64_t j = 0; j < n; ++j) from_float(from[j], image.data[offset + step * j]);
  }
}

template <class T>
void scatter_row_transposed(const Image<T>& image, int64_t offset, int channels, Vec bias, int64_t step, int64_t n,
                            const float* from, int64_t plane) {
  for (int64_t j = 0; j < n; j += Vec::lanes) {
    Vec block[Vec::lanes];
    for (int c = 0; c < Vec::lanes; ++c) block[c] = c < channels ? Vec::load(from + c * plane + j) : Vec(0.0f);
    transpose(block);
    const int pixels = static_cast<int>(least(Vec::lanes, n - j));
    for (int i = 0; i < pixels; ++i) put(image, offset + (j + i) * step * image.channels, block[i] + bias, channels);
  }
}

// The first count[0] x count[1] x count[2] lattice points of `channels` planes, into the image.
template <class T>
void unstage(const Image<T>& image, int64_t channel, int64_t channels, const Lattice& l, const int64_t (&count)[3],
             const float* from, int64_t plane) {
  const int64_t together = image.channels_last ? channels : 1;
  for (int64_t c = 0; c < channels; c += together) {
    for (int64_t d = 0; d < count[0]; ++d) {
      for (int64_t h = 0; h < count[1]; ++h) {
        const int64_t at[3] = {l.start[0] + l.step[0] * d, l.start[1] + l.step[1] * h, l.start[2]};
        const float* row = from + c * plane + (d * l.extent[1] + h) * l.extent[2];
        for (int64_t i = 0; i < together; i += Vec::lanes) {
          const int here = static_cast<int>(least(Vec::lanes, together - i));
          const Vec bias = image.bias ? Vec::load(image.bias + channel + c + i, here) : Vec(0.0f);
          const int64_t offset = image.offset(channel + c + i, image.pixel(at));
          prefetch_row<true>(image, offset, l, count[2]);
          if (image.channels_last)
            scatter_row_transposed(image, offset, here, bias, l.step[2], count[2], row + i * plane, plane);
          else
            scatter_row(image, offset, bias.v[0], l.step[2], count[2], row);
        }
      }
    }
  }
}

}  // namespace accelops::ACCELOPS_ISA
