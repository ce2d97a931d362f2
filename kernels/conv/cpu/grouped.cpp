// Grouped convolution with a few channels per group (ResNeXt, RegNet), 1D to 3D, all directions, fp32 and bf16.
//
// A work item is a band of rows of one image and group (channels_last: of as many groups as Config.block_channels holds).
// Its channels are staged as fp32 planes (grouped_planes.hpp) in which a tap is an offset (grouped_geometry.hpp); the
// register tiles of grouped_tiles.hpp do the rest. fprop and dgrad are one gathering engine with other weights; in wgrad
// each unit of work owns a fixed share of the bands of a group and its partial sums are added in a fixed order, so that
// no result depends on the schedule. Bytes: every tensor once, plus the bands' overlap; flops: 2 N K P Q (C/groups) R S
// and the points between rows, (W + S - 1) / W of them.
#include "conv/cpu/families.hpp"
#include "conv/cpu/grouped_geometry.hpp"
#include "conv/cpu/grouped_tiles.hpp"
#include "thread_pool.hpp"

namespace accelops::ACCELOPS_ISA {
namespace {

template <class T>
class Grouped {
 public:
  Grouped(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o)
      : p(p),
        o(o),
        geometry(p, p.direction == Direction::dgrad, scratch(p, p.direction != Direction::dgrad),
                 scratch(p, p.direction == Direction::dgrad), tiles.value[0] << 10),
        tile_channels(static_cast<int>(least(tiles.value[1], max_channels))),
        group_blocks(p.groups, p.channels_last ? most(1, tiles.value[2] / most(c_per_group, k_per_group)) : 1) {}

  void gather(int threads) const;
  void wgrad(int threads) const;

 private:
  const ConvProblem& p;
  const ConvOperands& o;
  const Geometry geometry;
  const int tile_channels;
  const int64_t c_per_group = p.in_channels / p.groups, k_per_group = p.out_channels / p.groups;
  const int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
  const Blocks group_blocks;
  const bool add_bias = p.bias && p.direction == Direction::fprop;

  // Bytes per point and group of the planes of one side.
  static int64_t scratch(const ConvProblem& p, bool input) {
    return (input ? p.in_channels : p.out_channels) / p.groups * static_cast<int64_t>(sizeof(float));
  }
  int64_t weight_offset(int64_t k, int64_t c, int64_t tap) const {
    return p.channels_last ? (k * taps + tap) * c_per_group + c : (k * c_per_group + c) * taps + tap;
  }

  void stage_source(const Image<const T>& from, int64_t first_group, int64_t groups, int64_t b, float* planes) const;
  void pack(int64_t group, const int64_t* tap, int64_t phase_taps, float* to) const;
  struct Filter;
  void gather_band(const Filter&, int64_t n, int64_t block, int64_t b) const;
  void wgrad_unit(int64_t unit, int64_t splits, const int64_t* offset, float* partial, float* partial_bias) const;
  void wgrad_reduce(int64_t group, int64_t splits, const float* partial, const float* partial_bias) const;
};

template <class T>
void Grouped<T>::stage_source(const Image<const T>& from, int64_t first_group, int64_t groups, int64_t b, float* planes) const {
  const Geometry& g = geometry;
  const Box all{{0, 0, 0}, {from.size[0], from.size[1], from.size[2]}};
  for (int64_t phase = 0; phase < g.source_planes; ++phase)
    stage(from, first_group * g.source_channels, groups * g.source_channels, g.source(phase, b), all,
          planes + phase * g.plane, g.source_planes * g.plane);
}

// The weights of one group that a target phase uses: [block of target channels][source channel][tap][target channel].
template <class T>
void Grouped<T>::pack(int64_t group, const int64_t* tap, int64_t phase_taps, float* to) const {
  const Geometry& g = geometry;
  const T* weight = static_cast<const T*>(o.weight) + group * k_per_group * c_per_group * taps;
  const Blocks blocks(g.target_channels, tile_channels);
  for (int64_t block = 0; block < blocks.blocks; ++block)
    for (int64_t source = 0; source < g.source_channels; ++source)
      for (int64_t t = 0; t < phase_taps; ++t)
        for (int64_t target = blocks.begin(block); target < blocks.begin(block + 1); ++target)
          *to++ = to_float(weight[g.to_input ? weight_offset(source, target, tap[t]) : weight_offset(target, source, tap[t])]);
}

// What all items of a gathering share: the taps of each target phase, by phase, and the packed weights, by group.
template <class T>
struct Grouped<T>::Filter {
  const int64_t per_phase, group_weights;
  Scratch<int64_t> offset, tap, taps;
  Scratch<float> weight, bias;

  Filter(const Grouped& grouped, int threads)
      : per_phase(grouped.geometry.source_channels * grouped.taps),
        group_weights(grouped.geometry.target_channels * per_phase),
        offset(grouped.geometry.phases * per_phase),
        tap(grouped.geometry.phases * grouped.taps),
        taps(grouped.geometry.phases),
        weight(grouped.p.groups * group_weights),
        bias(grouped.p.out_channels) {
    const Geometry& g = grouped.geometry;
    for (int64_t f = 0; f < g.phases; ++f) taps[f] = g.taps_of(f, offset + f * per_phase, tap + f * grouped.taps);
    parallel_for(threads, grouped.p.groups, 1, [&](int64_t group, int64_t) {
      float* to = weight + group * group_weights;
      for (int64_t f = 0; f < g.phases; to += g.target_channels * g.source_channels * taps[f++])
        grouped.pack(group, tap + f * grouped.taps, taps[f], to);
    });
    for (int64_t k = 0; grouped.add_bias && k < grouped.p.out_channels; ++k)
      bias[k] = to_float(static_cast<const T*>(grouped.o.bias)[k]);
  }
};

// fprop and dgrad: every target point sums what its taps reach.
template <class T>
void Grouped<T>::gather(int threads) const {
  const Filter filter(*this, threads);
  const int64_t bands = geometry.bands, blocks = group_blocks.blocks;
  parallel_for(threads, p.batch * blocks * bands, 1, [&](int64_t item, int64_t) {
    gather_band(filter, item / bands / blocks, item / bands % blocks, item % bands);
  });
}

// Band b of one block of groups of image n.
template <class T>
void Grouped<T>::gather_band(const Filter& filter, int64_t n, int64_t block, int64_t b) const {
  const Geometry& g = geometry;
  const Blocks tiles(g.target_channels, tile_channels);
  const int64_t first = group_blocks.begin(block), groups = group_blocks.begin(block + 1) - first;
  const int64_t source_planes = g.source_channels * g.source_planes;
  Scratch<float> x(groups * source_planes * g.plane + Vec::lanes), y(groups * g.target_channels * g.plane);
  const auto source = image_of<const T>(p, g.to_input ? o.grad_output : o.input, g.to_input ? o.saved : nullptr, n, g.to_input);
  auto target = image_of<T>(p, g.to_input ? o.grad_input : o.output, g.to_input ? nullptr : o.output_saved, n, !g.to_input);
  if (add_bias) target.bias = filter.bias;
  if (g.to_input) target.activation = Activation::none;
  stage_source(source, first, groups, b, x);
  const float* weight = filter.weight + first * filter.group_weights;
  for (int64_t f = 0; f < g.phases; ++f) {
    int64_t count[3], points;
    const Lattice l = g.target(f, b, count, points);
    const int64_t reach = g.source_channels * filter.taps[f];
    for (int64_t group = 0; points > 0 && group < groups; ++group) {
      for (int64_t k = 0; k < tiles.blocks; ++k) {
        const int64_t channel = tiles.begin(k), channels = tiles.begin(k + 1) - channel;
        correlate(static_cast<int>(channels),
                  {x + group * source_planes * g.plane, filter.offset + f * filter.per_phase,
                   weight + group * filter.group_weights + channel * reach, reach,
                   y + (group * g.target_channels + channel) * g.plane, g.plane},
                  points);
      }
    }
    if (points > 0) unstage(target, first * g.target_channels, groups * g.target_channels, l, count, y, g.plane);
    weight += g.target_channels * reach;
  }
}

// to[i] = the sum of the i-th vector at `from`, sixteen at a time through a transpose.
void sum_each(const float* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; i += Vec::lanes) {
    const int here = static_cast<int>(least(Vec::lanes, n - i));
    Vec rows[Vec::lanes], sum(0.0f);
    for (int r = 0; r < Vec::lanes; ++r) rows[r] = r < here ? Vec::load(from + (i + r) * Vec::lanes) : Vec(0.0f);
    transpose(rows);
    for (int r = 0; r < Vec::lanes; ++r) sum += rows[r];
    sum.store(to + i, here);
  }
}

// One block of groups over one share of all (image, band) pairs. `partial` is [group][channel][tap][k].
template <class T>
void Grouped<T>::wgrad_unit(int64_t unit, int64_t splits, const int64_t* offset, float* partial, float* partial_bias) const {
  const Geometry& g = geometry;
  const int64_t block = unit / splits, share = unit % splits, first = group_blocks.begin(block);
  const int64_t groups = group_blocks.begin(block + 1) - first, filters = c_per_group * taps * k_per_group;
  const int64_t x_planes = c_per_group * g.source_planes, channels = groups * k_per_group;
  const int64_t x_size = groups * x_planes * g.plane + Vec::lanes;
  Scratch<float> x(x_size), gradient(channels * g.plane), total((groups * filters + channels) * Vec::lanes);
  float* const total_bias = total + groups * filters * Vec::lanes;
  fill_zero(x, x_size);  // what lies between planes is multiplied by zero: it must be finite
  fill_zero(gradient, channels * g.plane);
  fill_zero(total, (groups * filters + channels) * Vec::lanes);
  const int64_t pairs = p.batch * g.bands;
  for (int64_t pair = pairs * share / splits; pair < pairs * (share + 1) / splits; ++pair) {
    const int64_t n = pair / g.bands, b = pair % g.bands;
    int64_t count[3], points;
    const Lattice l = g.target(0, b, count, points);
    Box valid{{l.start[0], l.start[1], l.start[2]}, {l.start[0] + count[0], l.start[1] + count[1], l.start[2] + count[2]}};
    stage_source(image_of<const T>(p, o.input, nullptr, n, false), first, groups, b, x);
    stage(image_of<const T>(p, o.grad_output, o.saved, n, true), first * k_per_group, channels, l, valid, gradient, g.plane);
    for (int64_t group = 0; group < groups; ++group)
      outer({gradient + group * k_per_group * g.plane, g.plane, x + group * x_planes * g.plane, offset, c_per_group * taps, points,
             total + group * filters * Vec::lanes, k_per_group});
    for (int64_t k = 0; p.bias && k < channels; ++k) {
      Vec sum = Vec::load(total_bias + k * Vec::lanes);
      for (int64_t i = 0; i < points; i += Vec::lanes) sum += Vec::load(gradient + k * g.plane + i);
      sum.store(total_bias + k * Vec::lanes);
    }
  }
  sum_each(total, groups * filters, partial + (share * p.groups + first) * filters);
  sum_each(total_bias, channels, partial_bias + share * p.out_channels + first * k_per_group);
}

template <class T>
void Grouped<T>::wgrad_reduce(int64_t group, int64_t splits, const float* partial, const float* partial_bias) const {
  const int64_t filters = c_per_group * taps * k_per_group;
  for (int64_t k = 0; k < k_per_group; ++k) {
    const int64_t channel = group * k_per_group + k;
    for (int64_t c = 0; c < c_per_group; ++c) {
      for (int64_t t = 0; t < taps; ++t) {
        float sum = 0;
        for (int64_t s = 0; s < splits; ++s) sum += partial[(s * p.groups + group) * filters + (c * taps + t) * k_per_group + k];
        from_float(sum, static_cast<T*>(o.grad_weight)[weight_offset(channel, c, t)]);
      }
    }
    float sum = 0;
    for (int64_t s = 0; s < splits; ++s) sum += partial_bias[s * p.out_channels + channel];
    if (p.bias) from_float(sum, static_cast<T*>(o.grad_bias)[channel]);
  }
}

template <class T>
void Grouped<T>::wgrad(int threads) const {
  // 64 units keep up to a dozen threads evenly busy; more would only add partial sums to reduce.
  const int64_t splits = most(1, least(p.batch * geometry.bands, ceil_div(64, group_blocks.blocks)));
  Scratch<int64_t> offset(c_per_group * taps), tap(taps);
  geometry.taps_of(0, offset, tap);
  Scratch<float> partial(splits * p.out_channels * c_per_group * taps), partial_bias(splits * p.out_channels);
  parallel_for(threads, group_blocks.blocks * splits, 1,
               [&](int64_t unit, int64_t) { wgrad_unit(unit, splits, offset, partial, partial_bias); });
  parallel_for(threads, p.groups, 8, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) wgrad_reduce(group, splits, partial, partial_bias);
  });
}

template <class T>
void run(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o, int threads) {
  const Grouped<T> grouped(p, tiles, o);
  p.direction == Direction::wgrad ? grouped.wgrad(threads) : grouped.gather(threads);
}

}  // namespace

void grouped(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o, int threads) {
  p.dtype == DType::bf16 ? run<bf16>(p, tiles, o, threads) : run<float>(p, tiles, o, threads);
}

}  // namespace accelops::ACCELOPS_ISA
