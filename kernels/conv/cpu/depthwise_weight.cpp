// Depthwise wgrad: a block of gradient rows in registers meets the input rows that its taps saw; sums stay in vectors
// per tap until a task ends. 2 N C O P Q T R S flops. The images and boxes of a channel block are dealt to a number of
// splits that depends on the problem alone, and their sums are added in order: the result is the same for any number of
// threads.
#include "conv/cpu/depthwise.hpp"
#include "conv/cpu/depthwise_plan.hpp"
#include "thread_pool.hpp"

namespace accelops::ACCELOPS_ISA {
namespace {

constexpr int64_t kTasks = 32;  // enough to keep many threads evenly busy

// Adds the results of a box to one vector (per vector of channels): the bias gradient.
void add_up(const DepthwisePlan& plan, const Window& box, const float* g, float* sum) {
  const int64_t columns = box.hi[2] - box.lo[2];
  for (int64_t d = 0; d < box.hi[0] - box.lo[0]; ++d) {
    for (int64_t h = 0; h < box.hi[1] - box.lo[1]; ++h) {
      const float* row = g + plan.result.at(d, h, 0);
      if (plan.channels) {
        for (int64_t v = 0; v < plan.lanes; v += Vec::lanes) {
          Vec s(0.0f);
          for (int64_t w = 0; w < columns; ++w) s += Vec::load(row + w * plan.lanes + v);
          (Vec::load(sum + v) + s).store(sum + v);
        }
      } else {
        Vec s(0.0f);
        int64_t w = 0;
        for (; w + Vec::lanes <= columns; w += Vec::lanes) s += Vec::load(row + w);
        s += Vec::load(row + w, static_cast<int>(columns - w));
        (Vec::load(sum) + s).store(sum);
      }
    }
  }
}

void accumulate_plane(const DepthwisePlan& plan, Plane plane, const float* x, const float* g, int64_t per_line,
                      float* sums, Ahead& ahead) {
  const int64_t rows = plan.tiles.block_rows;
  const int last = static_cast<int>((per_line - 1) % Vec::lanes + 1);
  if (plan.channels) return accumulate<true>(plane, rows, x, g, sums, Vec::lanes, ahead);
  if (!plan.folded) return accumulate<false>(plane, rows, x, g, sums, last, ahead);
  // The rows are vectors of one line, and only its last may be short.
  const int64_t full = per_line / Vec::lanes;
  plane.rows = full;
  accumulate<false>(plane, rows, x, g, sums, Vec::lanes, ahead);
  plane.rows = 1;
  if (last < Vec::lanes)
    accumulate<false>(plane, rows, x + full * Vec::lanes, g + full * Vec::lanes, sums, last, ahead);
}

// partial[split][channel][place]: places are the packed taps, then the bias.
void finish(const DepthwisePlan& plan, const ConvProblem& p, int64_t c, int64_t places, const float* sums,
            float* partial) {
  for (int64_t k = 0; k < places; ++k) {
    if (!plan.channels) {
      partial[c * places + k] = Vec::load(sums + k * Vec::lanes).sum();
      continue;
    }
    for (int64_t lane = 0; lane < least(plan.lanes, p.in_channels - c); ++lane)
      partial[(c + lane) * places + k] = sums[k * plan.lanes + lane];
  }
}

template <class T>
void reduce(const DepthwisePlan& plan, const ConvProblem& p, const ConvOperands& o, int64_t splits,
            const float* partial, int threads) {
  const int64_t taps = tap_count(p), places = taps + p.bias;
  parallel_for(threads, p.in_channels, 65536 / (places * (splits + 1)) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t k = 0; k < places; ++k) {
        float sum = 0;
        for (int64_t s = 0; s < splits; ++s) sum += partial[(s * p.in_channels + c) * places + k];
        T* to =
            k == taps ? static_cast<T*>(o.grad_bias) + c : static_cast<T*>(o.grad_weight) + c * taps + plan.packed(k);
        from_float(sum, *to);
      }
    }
  });
}

template <class T>
void run(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o, int threads) {
  const DepthwisePlan plan(p, tiles, true);
  // Where channels are last a task takes all blocks of its boxes, as they adjoin in memory; else one block.
  const int64_t units = p.batch * plan.boxes(), groups = p.channels_last ? 1 : plan.channel_blocks();
  const int64_t splits = least(units, ceil_div(kTasks, most(1, groups))),
                blocks = p.channels_last ? plan.channel_blocks() : 1;
  const int64_t places = tap_count(p) + p.bias, sums_size = places * (plan.channels ? plan.lanes : Vec::lanes);
  Scratch<float> partial(splits * p.in_channels * places);
  parallel_for(threads, groups * splits, 1, [&](int64_t task, int64_t) {
    Scratch<float> scratch(plan.source.size + plan.result.size + blocks * sums_size + plan.line());
    float *x = scratch, *g = x + plan.source.size, *sums = g + plan.result.size, *line = sums + blocks * sums_size;
    const Source<T> input = source_of<T>(p, o.input, nullptr, p.in, line);
    const Source<T> gradient = source_of<T>(p, o.grad_output, o.saved, p.out, line);
    const Source<T>&gathered = p.transposed ? gradient : input, &results = p.transposed ? input : gradient;
    const int64_t group = task / splits, split = task % splits, end = units * (split + 1) / splits;
    zero(sums, blocks * sums_size);
    zero(x, plan.source.size);
    Place here(plan), there(plan);
    const int64_t lines[2] = {plan.lines_ahead(plan.source_elements(), sizeof(T)),
                              plan.lines_ahead(plan.result_elements(), sizeof(T))};
    for (int64_t unit = units * split / splits; unit < end; ++unit) {
      const int64_t n = unit / plan.boxes(), next_n = (unit + 1) / plan.boxes();
      here.go(unit % plan.boxes()), there.go((unit + 1) % plan.boxes());
      for (int64_t block = 0; block < blocks; ++block) {
        const int64_t c = (group + block) * plan.lanes;
        float* sum = sums + block * sums_size;
        gathered.stage(n, c, here.window, plan.source, plan.margins(), x);
        results.stage(n, c, here.box, plan.result, false, g);
        Ahead ahead{};
        if (unit + 1 < units) {
          ahead.at[0] =
              first_byte(gathered.data, p.channels_last, p.in_channels, gathered.size, next_n, c, there.window);
          ahead.at[1] = first_byte(results.data, p.channels_last, p.in_channels, results.size, next_n, c, there.box);
          ahead.lines[0] = lines[0], ahead.lines[1] = lines[1];
        }
        for (int64_t i = 0; i < here.piece_count; ++i) {
          const Piece& piece = here.pieces[i];
          accumulate_plane(plan, piece.plane, x + piece.from, g + piece.to, piece.per_line, sum, ahead);
        }
        if (p.bias) add_up(plan, here.box, g, sum + tap_count(p) * (sums_size / places));
      }
    }
    for (int64_t block = 0; block < blocks; ++block)
      finish(plan, p, (group + block) * plan.lanes, places, sums + block * sums_size,
             partial + split * p.in_channels * places);
  });
  reduce<T>(plan, p, o, splits, partial, threads);
}

}  // namespace

void depthwise_weight(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o, int threads) {
  if (p.dtype == DType::f32) run<float>(p, tiles, o, threads);
  else run<bf16>(p, tiles, o, threads);
}

}  // namespace accelops::ACCELOPS_ISA
