// Depthwise fprop and dgrad: stage a box of the source, correlate it with the channel's filter, write the results
// through bias and activation. 2 N C O P Q T R S flops; each tensor is read or written once, plus the halo of the
// boxes.
#include "conv/cpu/depthwise.hpp"
#include "conv/cpu/depthwise_plan.hpp"
#include "thread_pool.hpp"

namespace accelops::ACCELOPS_ISA {
namespace {

template <class T>
void pack(const DepthwisePlan& plan, const ConvProblem& p, const void* weight, int64_t c, float* packed) {
  const T* filters = static_cast<const T*>(weight);
  const int64_t taps = tap_count(p);
  for (int64_t k = 0; k < taps; ++k)
    for (int64_t lane = 0; lane < plan.lanes; ++lane)
      packed[k * plan.lanes + lane] =
          c + lane < p.in_channels ? to_float(filters[(c + lane) * taps + plan.packed(k)]) : 0.0f;
}

template <class T>
void run(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o, int threads) {
  const bool fprop = p.direction == Direction::fprop;
  const DepthwisePlan plan(p, tiles, fprop != p.transposed);
  const int64_t *in = plan.source_size, *out = plan.result_size;
  const int64_t tasks = p.batch * plan.boxes() * plan.channel_blocks();
  if (tasks == 0) return;
  // About eight chunks for each thread, of whole boxes.
  const int64_t whole = p.channels_last ? plan.channel_blocks() : 1,
                chunk = ceil_div(ceil_div(tasks, 8 * threads), whole) * whole;
  Scratch<float> packed(plan.channel_blocks() * tap_count(p) * plan.lanes);
  parallel_for(threads, plan.channel_blocks(), 8192 / (tap_count(p) * plan.lanes) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      pack<T>(plan, p, o.weight, b * plan.lanes, packed + b * tap_count(p) * plan.lanes);
  });
  parallel_for(threads, tasks, chunk, [&](int64_t begin, int64_t end) {
    Scratch<float> scratch(plan.source.size + plan.result.size + plan.line());
    float *staged = scratch, *results = staged + plan.source.size, *line = results + plan.result.size;
    const Source<T> source =
        source_of<T>(p, fprop ? o.input : o.grad_output, fprop ? nullptr : o.saved, in, line);
    const Sink<T> sink = sink_of<T>(p, o, out, line);
    zero(staged, plan.source.size);
    Place here(plan), there(plan);
    const int64_t lines[2] = {plan.lines_ahead(plan.result_elements(), sizeof(T)),
                              plan.lines_ahead(plan.source_elements(), sizeof(T))};
    for (int64_t task = begin; task < end; ++task) {
      const Task t = plan.task(task);
      const int64_t n = t.n, c = t.block * plan.lanes;
      const float* weight = packed + t.block * tap_count(p) * plan.lanes;
      here.go(t.box);
      source.stage(n, c, here.window, plan.source, plan.margins(), staged);
      Ahead ahead{{first_byte(sink.data, p.channels_last, p.in_channels, out, n, c, here.box), nullptr}, {lines[0], 0}};
      if (plan.next(task) < end) {
        const Task u = plan.task(plan.next(task));
        there.go(u.box);
        ahead.at[1] =
            first_byte(source.data, p.channels_last, p.in_channels, in, u.n, u.block * plan.lanes, there.window);
        ahead.lines[1] = lines[1];
      }
      for (int64_t i = 0; i < here.piece_count; ++i) {
        const Piece& piece = here.pieces[i];
        if (plan.channels)
          correlate<true>(piece.plane, plan.tiles.block_rows, staged + piece.from, weight, results + piece.to, ahead);
        else
          correlate<false>(piece.plane, plan.tiles.block_rows, staged + piece.from, weight, results + piece.to, ahead);
      }
      sink.unstage(n, c, here.box, plan.result, results);
    }
  });
}

}  // namespace

void depthwise_data(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o, int threads) {
  if (p.dtype == DType::f32) run<float>(p, tiles, o, threads);
  else run<bf16>(p, tiles, o, threads);
}

}  // namespace accelops::ACCELOPS_ISA
