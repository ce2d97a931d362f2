// Depthwise fprop and dgrad: stage a box of the source, correlate it with the channel's filter, write the results through
// bias and activation. 2 N C O P Q T R S flops; each tensor is read or written once, plus the halo of the boxes.
#include "conv/cpu/depthwise.hpp"
#include "conv/cpu/depthwise_plan.hpp"
#include "thread_pool.hpp"

namespace accelops::ACCELOPS_ISA {
namespace {

// Tasks are handed out in chunks of at least this many results, so that buffers and packed weights serve many.
constexpr int64_t kChunkResults = 32768;

template <class T>
void pack(const DepthwisePlan& plan, const ConvProblem& p, const void* weight, int64_t c, float* packed) {
  const T* filters = static_cast<const T*>(weight);
  const int64_t taps = tap_count(p);
  for (int64_t k = 0; k < taps; ++k)
    for (int64_t lane = 0; lane < plan.lanes; ++lane)
      packed[k * plan.lanes + lane] = c + lane < p.in_channels ? to_float(filters[(c + lane) * taps + plan.packed(k)]) : 0.0f;
}

template <class T>
void run(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o, int threads) {
  const bool fprop = p.direction == Direction::fprop;
  const DepthwisePlan plan(p, tiles, fprop != p.transposed);
  const int64_t *in = plan.source_size, *out = plan.result_size;
  const int64_t tasks_per_block = p.batch * plan.boxes(), tasks = plan.channel_blocks() * tasks_per_block;
  if (tasks == 0) return;
  const int64_t task_results = ceil_div(volume(out), plan.boxes()) * plan.lanes;
  const int64_t chunk = larger(1, smaller(tasks_per_block, kChunkResults / larger(1, task_results)));
  parallel_for(threads, tasks, chunk, [&](int64_t begin, int64_t end) {
    Scratch<float> scratch(plan.source.size + plan.result.size + tap_count(p) * plan.lanes + plan.line());
    float *staged = scratch, *results = staged + plan.source.size, *weight = results + plan.result.size;
    float* line = weight + tap_count(p) * plan.lanes;
    Source<T> source{static_cast<const T*>(fprop ? o.input : o.grad_output), nullptr, p.activation,
                     p.in_channels, {in[0], in[1], in[2]}, line};
    Sink<T> sink{static_cast<T*>(fprop ? o.output : o.grad_input), nullptr, nullptr, Activation::none,
                 p.in_channels, {out[0], out[1], out[2]}, line};
    if (fprop) {
      sink.saved = static_cast<T*>(o.output_saved), sink.activation = p.activation;
      if (p.bias) sink.bias = static_cast<const T*>(o.bias);
    } else if (p.activation != Activation::none) {
      source.saved = static_cast<const T*>(o.saved);
    }
    int64_t packed = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t block = task / tasks_per_block, c = block * plan.lanes;
      const int64_t n = task % tasks_per_block / plan.boxes();
      if (block != packed) pack<T>(plan, p, o.weight, c, weight), packed = block;
      const Window box = plan.box_at(task % plan.boxes()), window = plan.window_of(box);
      source.stage(n, c, window, plan.source, staged);
      plan.for_each_plane(box, window, [&](const Plane& plane, int64_t from, int64_t to, int64_t) {
        if (plan.channels) correlate<true>(plane, plan.tiles.block_rows, staged + from, weight, results + to);
        else correlate<false>(plane, plan.tiles.block_rows, staged + from, weight, results + to);
      });
      sink.unstage(n, c, box, plan.result, results);
    }
  });
}

}  // namespace

void depthwise_data(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o, int threads) {
  if (p.dtype == DType::f32) run<float>(p, tiles, o, threads);
  else run<bf16>(p, tiles, o, threads);
}

}  // namespace accelops::ACCELOPS_ISA
