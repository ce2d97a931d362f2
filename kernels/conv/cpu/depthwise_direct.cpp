// Depthwise fprop, and dgrad of stride 1, where lanes run over channels: channels_last tensors are read and written as
// they lie, contiguous ones as transposed images. No padding is staged. A block of up to 14 result columns is held in
// registers, and a pixel, once loaded, meets every (column, tap) pair of its line that it serves: a 7-wide kernel costs
// 27 loads per 98 multiply-adds. 2 N C O P Q T R S flops; each tensor is read or written once.
#include "conv/cpu/depthwise.hpp"
#include "conv/cpu/depthwise_engine.hpp"
#include "conv/cpu/depthwise_staging.hpp"
#include "conv/cpu/scratch.hpp"
#include "thread_pool.hpp"

namespace accelops::ACCELOPS_ISA {
namespace {

constexpr int kColumns = Vec::lanes == 16 ? 14 : 7;  // more and the weights spill

// One dimension: result j gathers from pixel j * stride - padding + tap * dilation.
struct Dimension {
  int64_t results, pixels, taps, stride, padding, dilation;

  int64_t pixel(int64_t j, int64_t tap) const { return j * stride - padding + tap * dilation; }
  bool inside(int64_t pixel) const { return pixel >= 0 && pixel < pixels; }
};

template <class T>
struct Problem {
  Dimension d, h, w;
  bool flipped;  // the taps, in memory
  int64_t channels;
  const T* source;
  const float* weight;  // per block of channels, per tap: a vector
  const T* bias;
  T *result, *saved;
  Activation activation;

  int64_t blocks() const { return ceil_div(channels, Vec::lanes); }
  // The last block overlaps its neighbour rather than being short.
  int64_t channel(int64_t block) const { return least(block * Vec::lanes, channels - Vec::lanes); }
  int64_t taps() const { return d.taps * h.taps * w.taps; }
  // Of a block, nearly equal ones.
  int64_t columns() const { return ceil_div(w.results, ceil_div(w.results, kColumns)); }
};

// Columns of a block and what they meet in a line of the source: pixel `first` + i * `apart` for i in [0, pixels), of
// which those in [lo, hi) lie in the tensor.
struct Reach {
  int64_t first, apart, lo, hi;

  Reach(const Dimension& w, int64_t column, int64_t tap, int64_t apart)
      : first(w.pixel(column, tap)), apart(apart), lo(ceil_div(-first, apart)), hi(ceil_div(w.pixels - first, apart)) {}
  bool inside(int64_t i) const { return i >= lo && i < hi; }
};

// Which pixels of a Reach may lie outside the tensor: none; those that not all taps of some result see; any.
enum class Outside { none, ends, any };

// Adds `taps` taps of one line. `step` is the stride where it is known to the compiler; with one tap it need not be.
template <class T, int columns, int taps, int step, Outside outside>
inline void gather(const T* at, int64_t pitch, const float* weight, const Reach& reach, const T* zeros,
                   Vec (&sum)[columns]) {
  constexpr int pixels = (columns - 1) * step + taps;
  Vec w[taps];
#pragma GCC unroll 7
  for (int s = 0; s < taps; ++s) w[s] = Vec::load(weight + s * Vec::lanes);
#pragma GCC unroll 34
  for (int i = 0; i < pixels; ++i) {
    const bool checked = outside == Outside::any || (outside == Outside::ends && (i < taps - 1 || i > pixels - taps));
    const Vec in = Vec::load(!checked || reach.inside(i) ? at + i * pitch : zeros);
#pragma GCC unroll 7
    for (int s = 0; s < taps; ++s)
      if (i >= s && (i - s) % step == 0 && (i - s) / step < columns)
        sum[(i - s) / step] = fma(in, w[s], sum[(i - s) / step]);
  }
}

// Adds `taps` taps from `tap` on of all lines that lie in the tensor.
template <class T, int columns, int taps, int step, Outside outside>
inline void gather_lines(const Problem<T>& p, const T* image, const float* weight, const int64_t* at,
                         const Reach& reach, Vec (&sum)[columns]) {
  alignas(64) static constexpr T zeros[Vec::lanes] = {};
  for (int64_t t = 0; t < p.d.taps; ++t) {
    const int64_t d = p.d.pixel(at[0], t);
    if (!p.d.inside(d)) continue;
    for (int64_t r = 0; r < p.h.taps; ++r) {
      const int64_t h = p.h.pixel(at[1], r);
      if (!p.h.inside(h)) continue;
      gather<T, columns, taps, step, outside>(image + ((d * p.h.pixels + h) * p.w.pixels + reach.first) * p.channels,
                                              reach.apart * p.channels,
                                              weight + (t * p.h.taps + r) * p.w.taps * Vec::lanes, reach, zeros, sum);
    }
  }
}

// Results at[2] up to at[2] + columns of a line, of one block of channels; those past its end are dropped. The taps of a
// line are taken `taps` at a time.
template <class T, int columns, int taps, int step>
void line_block(const Problem<T>& p, int64_t n, int64_t block, const int64_t* at) {
  constexpr int pixels = (columns - 1) * step + taps;
  const int64_t c = p.channel(block);
  const T* image = p.source + n * p.d.pixels * p.h.pixels * p.w.pixels * p.channels + c;
  const Vec start = p.bias ? Vec::load(p.bias + c) : Vec(0.0f);
  Vec sum[columns];
#pragma GCC unroll 14
  for (int i = 0; i < columns; ++i) sum[i] = start;
  for (int64_t tap = 0; tap < p.w.taps; tap += taps) {
    const float* weight = p.weight + (block * p.taps() + tap) * Vec::lanes;
    const Reach reach(p.w, at[2], tap, taps == 1 ? p.w.stride : 1);
    if (reach.lo <= 0 && reach.hi >= pixels)
      gather_lines<T, columns, taps, step, Outside::none>(p, image, weight, at, reach, sum);
    else if (reach.lo < taps && reach.hi > pixels - taps)
      gather_lines<T, columns, taps, step, Outside::ends>(p, image, weight, at, reach, sum);
    else
      gather_lines<T, columns, taps, step, Outside::any>(p, image, weight, at, reach, sum);
  }
  const int64_t first = (((n * p.d.results + at[0]) * p.h.results + at[1]) * p.w.results + at[2]) * p.channels + c;
  T* const to = p.result + first;
  const int64_t valid = p.w.results - at[2];
  if (p.activation == Activation::none && !p.saved && valid >= columns) {
#pragma GCC unroll 14
    for (int i = 0; i < columns; ++i) sum[i].store(to + i * p.channels);
    return;
  }
#pragma GCC unroll 14
  for (int i = 0; i < columns; ++i) {
    if (i >= valid) break;
    if (p.saved) sum[i].store(p.saved + first + i * p.channels);
    activate(p.activation, sum[i]).store(to + i * p.channels);
  }
}

// Lines of results in nearly equal blocks.
template <class T>
using LineBlock = void (*)(const Problem<T>&, int64_t n, int64_t block, const int64_t* at);

template <class T, int columns>
LineBlock<T> with_taps(const Problem<T>& p) {
  const int64_t together = p.w.dilation == 1 ? p.w.taps : 1;
  if (p.w.stride == 1 && together % 7 == 0) return line_block<T, columns, 7, 1>;
  if (p.w.stride == 1 && together % 5 == 0) return line_block<T, columns, 5, 1>;
  if (p.w.stride == 1 && together % 3 == 0) return line_block<T, columns, 3, 1>;
  if (p.w.stride == 2 && together % 7 == 0) return line_block<T, columns, 7, 2>;
  if (p.w.stride == 2 && together % 5 == 0) return line_block<T, columns, 5, 2>;
  if (p.w.stride == 2 && together % 3 == 0) return line_block<T, columns, 3, 2>;
  return line_block<T, columns, 1, 1>;
}

template <class T>
LineBlock<T> line_block_of(const Problem<T>& p) {
  if constexpr (kColumns == 14) {
    if (p.columns() > 10) return with_taps<T, 14>(p);
    if (p.columns() > 7) return with_taps<T, 10>(p);
  }
  if (p.columns() > 4) return with_taps<T, 7>(p);
  return p.columns() > 2 ? with_taps<T, 4>(p) : with_taps<T, 2>(p);
}

// How the results are dealt: a task is a slab of lines of one slice, over which block after block of channels goes while
// it lies in the cache. Slices follow each other, so that what neighbours share is still there.
template <class T>
struct Slabs {
  const Problem<T>& p;
  int64_t batch, count;

  Slabs(const Problem<T>& p, int64_t batch, int64_t cache) : p(p), batch(batch) {
    const int64_t line = p.w.pixels * p.channels * int64_t(sizeof(T)), lines = cache / most(1, line);
    count = ceil_div(p.h.results, most(1, lines / p.h.stride));
  }

  int64_t tasks() const { return batch * count * p.d.results; }
  int64_t slice(int64_t task) const { return task % p.d.results; }
  int64_t image(int64_t task) const { return task / p.d.results / count; }
  int64_t first(int64_t task) const { return p.h.results * (task / p.d.results % count) / count; }
  int64_t end(int64_t task) const { return p.h.results * (task / p.d.results % count + 1) / count; }

  // What `next` reads that `task` did not, and what it writes, to be fetched while `task` computes.
  Ahead ahead(int64_t task, int64_t next) const {
    const bool below = image(next) == image(task) && slice(next) == slice(task);
    const int64_t d = p.d.pixel(slice(next), p.d.taps - 1), end_of_source = most(0, source_end(next));
    const int64_t from = least(below ? most(0, source_end(task)) : most(0, p.h.pixel(first(next), 0)), end_of_source);
    const int64_t steps = p.blocks() * (end(task) - first(task)) * ceil_div(p.w.results, p.columns());
    const int64_t in_line = p.w.pixels * p.channels, out_line = p.w.results * p.channels;
    Ahead a{};
    if (p.d.inside(d)) {
      a.at[0] = bytes(p.source + ((image(next) * p.d.pixels + d) * p.h.pixels + from) * in_line);
      a.lines[0] = ceil_div((end_of_source - from) * in_line * int64_t(sizeof(T)), 64 * steps);
    }
    a.at[1] = bytes(p.result + ((image(next) * p.d.results + slice(next)) * p.h.results + first(next)) * out_line);
    a.lines[1] = ceil_div((end(next) - first(next)) * out_line * int64_t(sizeof(T)), 64 * steps);
    return a;
  }

 private:
  static const char* bytes(const T* at) { return reinterpret_cast<const char*>(at); }
  int64_t source_end(int64_t task) const {
    return least(p.h.pixels, p.h.pixel(end(task) - 1, p.h.taps - 1) + 1);
  }
};

// The geometry, without the tensors.
template <class T>
Problem<T> problem_of(const ConvProblem& p) {
  const bool fprop = p.direction == Direction::fprop;
  const int64_t *from = fprop ? p.in : p.out, *to = fprop ? p.out : p.in;
  Problem<T> problem{};
  problem.flipped = fprop == p.transposed;
  problem.channels = p.in_channels;
  Dimension* size[3] = {&problem.d, &problem.h, &problem.w};
  for (int d = 0; d < 3; ++d) {
    const int64_t reach = p.dilation[d] * (p.kernel[d] - 1), padding = problem.flipped ? reach - p.padding[d] : p.padding[d];
    *size[d] = {to[d], from[d], p.kernel[d], p.stride[d], padding, p.dilation[d]};
  }
  return problem;
}

// The filters of each block of channels, a vector per tap.
template <class T>
void pack(const Problem<T>& p, const void* weight, float* packed, int threads) {
  const T* filters = static_cast<const T*>(weight);
  const int64_t taps = p.taps();
  parallel_for(threads, p.blocks(), ceil_div(32768, taps * Vec::lanes), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        float* to = packed + (block * taps + tap) * Vec::lanes;
        const T* from = filters + p.channel(block) * taps + (p.flipped ? taps - 1 - tap : tap);
        for (int lane = 0; lane < Vec::lanes; ++lane) to[lane] = to_float(from[lane * taps]);
      }
    }
  });
}

template <class T>
void channels_last(const ConvProblem& conv, const ConvTiles& tiles, const ConvOperands& o, int threads) {
  Problem<T> p = problem_of<T>(conv);
  Scratch<float> packed(p.blocks() * p.taps() * Vec::lanes);
  pack(p, o.weight, packed, threads);
  p.weight = packed;
  const bool fprop = conv.direction == Direction::fprop;
  p.source = static_cast<const T*>(fprop ? o.input : o.grad_output);
  p.result = static_cast<T*>(fprop ? o.output : o.grad_input);
  if (fprop) {
    p.bias = conv.bias ? static_cast<const T*>(o.bias) : nullptr;
    p.saved = static_cast<T*>(o.output_saved), p.activation = conv.activation;
  }
  const LineBlock<T> line_block = line_block_of(p);
  const int64_t columns = p.columns();
  const Slabs<T> slabs(p, conv.batch, tiles.value[2] * 1024);
  // Where tasks are few, threads share their blocks of channels; the last two, which may overlap, go to one thread.
  const int64_t tasks = slabs.tasks(), splits = most(1, least(p.blocks() / 2, ceil_div(4 * threads, tasks)));
  parallel_for(threads, tasks * splits, ceil_div(tasks * splits, 8 * threads), [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t task = index / splits, split = index % splits;
      Ahead ahead = index + 1 < end && splits == 1 ? slabs.ahead(task, task + 1) : Ahead{};
      for (int64_t b = p.blocks() * split / splits; b < p.blocks() * (split + 1) / splits; ++b) {
        for (int64_t h = slabs.first(task); h < slabs.end(task); ++h) {
          for (int64_t w = 0; w < p.w.results; w += columns) {
            const int64_t at[3] = {slabs.slice(task), h, w};
            ahead.step();
            line_block(p, slabs.image(task), b, at);
          }
        }
      }
    }
  });
}

// Contiguous tensors: the images of a block of channels are transposed to a scratch image with channels last, and its
// results back. To the transposition an image is one line, so that short lines waste no lanes.
template <class T>
void contiguous(const ConvProblem& conv, const ConvOperands& o, int threads) {
  Problem<float> p = problem_of<float>(conv);
  const int64_t channels = p.channels, blocks = p.blocks(), filter = p.taps() * Vec::lanes;
  Scratch<float> packed(blocks * filter);
  pack(problem_of<T>(conv), o.weight, packed, threads);
  const bool fprop = conv.direction == Direction::fprop;
  const int64_t *in = fprop ? conv.in : conv.out, *out = fprop ? conv.out : conv.in, tasks = conv.batch * blocks;
  const Source<T> source = source_of<T>(conv, fprop ? o.input : o.grad_output, fprop ? nullptr : o.saved, in, nullptr);
  const Sink<T> sink = sink_of<T>(conv, o, out, nullptr);
  const LineBlock<float> line_block = line_block_of(p);
  const int64_t columns = p.columns();
  parallel_for(threads, tasks, ceil_div(tasks, 8 * threads), [&](int64_t begin, int64_t end) {
    Scratch<float> staged(volume(in) * Vec::lanes), results((volume(out) + 1) * Vec::lanes);
    Problem<float> image = p;
    image.channels = Vec::lanes, image.source = staged, image.result = results;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t block = task % blocks, c = p.channel(block), first = task / blocks * channels;
      source.stage_lines((first + c) * volume(in), volume(in), Vec::lanes, Vec::lanes, staged);
      image.weight = packed + block * filter;
      for (int64_t line = 0; line < out[0] * out[1]; ++line) {
        for (int64_t w = 0; w < out[2]; w += columns) {
          const int64_t at[3] = {line / out[1], line % out[1], w};
          line_block(image, 0, 0, at);
        }
      }
      const int64_t done = block * Vec::lanes - c;  // channels that belong to the block before
      sink.unstage_lines(results + done, Vec::lanes, sink.bias_from(c + done).value, (first + c + done) * volume(out),
                         Vec::lanes - done, volume(out));
    }
  });
}

template <class T>
void run(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o, int threads) {
  if (p.channels_last) channels_last<T>(p, tiles, o, threads);
  else contiguous<T>(p, o, threads);
}

}  // namespace

bool depthwise_goes_direct(const ConvProblem& p) {
  const bool strided = p.stride[0] * p.stride[1] * p.stride[2] > 1;
  if (p.direction == Direction::wgrad || p.in_channels < Vec::lanes) return false;
  if (p.direction == Direction::fprop) return !p.transposed || !strided;
  return (p.transposed || !strided) && (!p.channels_last || p.activation == Activation::none);
}

void depthwise_direct(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o, int threads) {
  if (p.batch * volume(p.direction == Direction::fprop ? p.out : p.in) == 0) return;
  if (p.dtype == DType::f32) run<float>(p, tiles, o, threads);
  else run<bf16>(p, tiles, o, threads);
}

}  // namespace accelops::ACCELOPS_ISA
