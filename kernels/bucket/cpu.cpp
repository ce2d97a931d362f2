// Pack, unpack and reduce at the speed of memory: one pass, every element read once, converted in registers and written
// once (pack fp32 -> bf16: 4 + 2 bytes and 1 flop an element). The flat buffer is cut into equal chunks whatever the
// tensors, so threads share one huge tensor and a thousand tiny ones alike; a chunk finds its first tensor by bisection.
#include "bucket/table.hpp"
#include "thread_pool.hpp"
#include "vec.hpp"

namespace accelops::ACCELOPS_ISA {
namespace {

constexpr int64_t kLeast = 1 << 16;  // elements worth waking a thread for: about 10 us
constexpr int64_t kLine = 64;        // elements: chunks begin on a cache line
constexpr int64_t kStaged = 512;     // elements of a strided tensor that pass through the stack at a time

// One chunk a thread, as torch cuts its own ops: what the ops before left in a core's cache is found there.
int64_t share(int64_t numel, int threads) {
  const int64_t each = (numel + threads - 1) / threads;
  return each < kLeast ? kLeast : (each + kLine - 1) / kLine * kLine;
}

template <class F>
void with_type(DType type, const F& call) {
  if (type == DType::f32) return call(float{});
  if (type == DType::bf16) return call(bf16{});
  call(f16{});
}

// Writes value(i, n) for each i in steps of one vector, n of its lanes, to[i...]: streamed from the first aligned address.
template <class To, class F>
void write(To* to, int64_t count, bool stream, const F& value) {
  int64_t i = 0;
  if (stream) {
    constexpr uintptr_t bytes = Vec::lanes * sizeof(To);
    const int64_t head = static_cast<int64_t>((bytes - reinterpret_cast<uintptr_t>(to) % bytes) % bytes / sizeof(To));
    if (head > 0) {
      i = head < count ? head : count;
      value(0, static_cast<int>(i)).store(to, static_cast<int>(i));
    }
    for (; i + Vec::lanes <= count; i += Vec::lanes) value(i).stream(to + i);
  }
  for (; i + Vec::lanes <= count; i += Vec::lanes) value(i).store(to + i);
  if (i < count) value(i, static_cast<int>(count - i)).store(to + i, static_cast<int>(count - i));
}

// One run: to = cast(scale * from).
template <class From, class To>
struct Scaled {
  const From* from;
  Vec scale;
  Vec operator()(int64_t i) const { return scale * Vec::load(from + i); }
  Vec operator()(int64_t i, int n) const { return scale * Vec::load(from + i, n); }
};

// One run with error feedback: what the cast to To loses stays in the residual.
template <class From, class To>
struct Compensated {
  const From* from;
  Vec scale;
  float* residual;
  Vec operator()(int64_t i) const {
    const Vec y = fma(scale, Vec::load(from + i), Vec::load(residual + i));
    lost(y).store(residual + i);
    return y;
  }
  Vec operator()(int64_t i, int n) const {
    const Vec y = fma(scale, Vec::load(from + i, n), Vec::load(residual + i, n));
    lost(y).store(residual + i, n);
    return y;
  }
  static Vec lost(Vec y) {
    To wire[Vec::lanes];
    y.store(wire);
    return finite_or_zero(y - Vec::load(wire));
  }
};

template <class From, class To>
void convert(const From* from, To* to, int64_t count, float* residual, float scale, bool stream) {
  if (residual)
    write(to, count, stream, Compensated<From, To>{from, Vec(scale), residual});
  else
    write(to, count, stream, Scaled<From, To>{from, Vec(scale)});
}

// Elements index, index + 1, ... of a strided tensor, from or to a contiguous stage: row by row along its last dimension.
template <class T, class F>
void each_row(const BucketTensor& t, T* tensor, int64_t index, int64_t count, const F& row) {
  const int64_t length = t.sizes[t.dims - 1], stride = t.strides[t.dims - 1];
  for (int64_t done = 0; done < count;) {
    const int64_t left = length - (index + done) % length, n = left < count - done ? left : count - done;
    row(tensor + offset_of(t, index + done), stride, done, n);
    done += n;
  }
}

template <class T>
void gather(const BucketTensor& t, const T* tensor, int64_t index, int64_t count, T* stage) {
  each_row(t, tensor, index, count, [&](const T* row, int64_t stride, int64_t at, int64_t n) {
    for (int64_t i = 0; i < n; ++i) stage[at + i] = row[i * stride];
  });
}

template <class T>
void scatter(const BucketTensor& t, T* tensor, int64_t index, int64_t count, const T* stage) {
  each_row(t, tensor, index, count, [&](T* row, int64_t stride, int64_t at, int64_t n) {
    for (int64_t i = 0; i < n; ++i) row[i * stride] = stage[at + i];
  });
}

// Calls run(k, index, count) for each piece of a tensor k in elements [begin, end) of the flat buffer.
template <class F>
void each_piece(const BucketMove& m, int64_t begin, int64_t end, const F& piece) {
  int64_t k = 0;
  for (int64_t beyond = m.count; beyond - k > 1;) {
    const int64_t middle = k + (beyond - k) / 2;
    (m.tensors[middle].begin <= begin ? k : beyond) = middle;
  }
  for (; begin < end; ++k) {
    const BucketTensor& t = m.tensors[k];
    const int64_t index = begin - t.begin, left = t.numel - index, n = left < end - begin ? left : end - begin;
    if (n > 0) piece(k, index, n);
    begin += n;
  }
}

template <class T, class Wire>
void pack_piece(const BucketMove& m, int64_t k, int64_t index, int64_t count) {
  const BucketTensor& t = m.tensors[k];
  const T* from = static_cast<const T*>(m.data[k]);
  Wire* to = static_cast<Wire*>(m.flat) + t.begin + index;
  float* residual = m.residual ? m.residual + t.begin + index : nullptr;
  const float scale = static_cast<float>(m.scale);
  if (t.contiguous) return convert(from + index, to, count, residual, scale, m.stream);
  T stage[kStaged];
  for (int64_t i = 0; i < count; i += kStaged) {
    const int64_t n = count - i < kStaged ? count - i : kStaged;
    gather(t, from, index + i, n, stage);
    convert(stage, to + i, n, residual ? residual + i : nullptr, scale, m.stream);
  }
}

template <class T, class Wire>
void unpack_piece(const BucketMove& m, int64_t k, int64_t index, int64_t count) {
  const BucketTensor& t = m.tensors[k];
  const Wire* from = static_cast<const Wire*>(m.flat) + t.begin + index;
  T* to = static_cast<T*>(m.data[k]);
  const float scale = static_cast<float>(m.scale);
  if (t.contiguous) return convert(from, to + index, count, nullptr, scale, m.stream);
  T stage[kStaged];
  for (int64_t i = 0; i < count; i += kStaged) {
    const int64_t n = count - i < kStaged ? count - i : kStaged;
    convert(from + i, stage, n, nullptr, scale, false);
    scatter(t, to, index + i, n, stage);
  }
}

void pack(const BucketMove& m, int threads) {
  with_type(m.wire, [&](auto wire) {
    parallel_for(threads, m.numel, share(m.numel, threads), [&](int64_t begin, int64_t end) {
      each_piece(m, begin, end, [&](int64_t k, int64_t index, int64_t count) {
        with_type(m.tensors[k].dtype, [&](auto type) { pack_piece<decltype(type), decltype(wire)>(m, k, index, count); });
      });
      if (m.stream) Vec::fence();
    });
  });
}

void unpack(const BucketMove& m, int threads) {
  with_type(m.wire, [&](auto wire) {
    parallel_for(threads, m.numel, share(m.numel, threads), [&](int64_t begin, int64_t end) {
      each_piece(m, begin, end, [&](int64_t k, int64_t index, int64_t count) {
        with_type(m.tensors[k].dtype, [&](auto type) { unpack_piece<decltype(type), decltype(wire)>(m, k, index, count); });
      });
      if (m.stream) Vec::fence();
    });
  });
}

// The sum over ranks of one vector, rank 0 first.
template <class Wire>
struct Sum {
  const BucketReduce& r;
  int64_t begin;
  Vec scale;
  const Wire* at(int64_t rank, int64_t i) const { return static_cast<const Wire*>(r.flats[rank]) + begin + i; }
  Vec operator()(int64_t i) const {
    Vec sum = Vec::load(at(0, i));
    for (int64_t rank = 1; rank < r.ranks; ++rank) sum += Vec::load(at(rank, i));
    return scale * sum;
  }
  Vec operator()(int64_t i, int n) const {
    Vec sum = Vec::load(at(0, i), n);
    for (int64_t rank = 1; rank < r.ranks; ++rank) sum += Vec::load(at(rank, i), n);
    return scale * sum;
  }
};

void reduce(const BucketReduce& r, int threads) {
  with_type(r.wire, [&](auto wire) {
    with_type(r.dtype, [&](auto type) {
      parallel_for(threads, r.numel, share(r.numel, threads), [&](int64_t begin, int64_t end) {
        const Sum<decltype(wire)> sum{r, begin, Vec(static_cast<float>(r.scale))};
        write(static_cast<decltype(type)*>(r.out) + begin, end - begin, r.stream, sum);
        if (r.stream) Vec::fence();
      });
    });
  });
}

}  // namespace

extern const BucketKernels bucket_kernels;
const BucketKernels bucket_kernels{pack, unpack, reduce};

}  // namespace accelops::ACCELOPS_ISA
