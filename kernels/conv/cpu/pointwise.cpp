// Convolution with a 1x1 kernel and no padding: a matrix product over channels in place, fp32, 1D to 3D, any stride.
//
// fprop and dgrad, contiguous: rows are result channels, columns pixels; channels_last: rows are pixels, columns result
// channels. Either way the weights are packed once for the call, the pixels a block at a time into the L2 cache, and each
// tile of the result is summed over all source channels in registers, then gets bias and activation on its way out.
// wgrad sums over pixels: blocks of result channels times shares of the pixels, added up in a fixed order, so that no
// result depends on the schedule. The activation's slope is applied while a gradient is packed.
// Bytes: every tensor once. Flops: 2 N C K P Q.
#include "conv/cpu/families.hpp"
#include "conv/cpu/integers.hpp"
#include "conv/cpu/pointwise_tile.hpp"
#include "conv/cpu/scratch.hpp"
#include "thread_pool.hpp"

namespace accelops::ACCELOPS_ISA {
namespace {

// The channels and those pixels of a tensor that the convolution touches, pixels numbered over the whole batch.
struct Side {
  int64_t channels, image, row;  // pixels touched per image, and in a run of equal distances
  int64_t channel_stride, pixel_stride, row_step[2], image_step, q[3];

  Side(const ConvProblem& p, bool output) {
    const int64_t* size = output ? p.out : p.in;
    const int64_t steps[3] = {output ? 1 : p.stride[0], output ? 1 : p.stride[1], output ? 1 : p.stride[2]};
    const bool dense = steps[0] == 1 && steps[1] == 1 && steps[2] == 1;
    const int64_t all = size[0] * size[1] * size[2], unit = p.channels_last ? output ? p.out_channels : p.in_channels : 1;
    channels = output ? p.out_channels : p.in_channels;
    image = p.out[0] * p.out[1] * p.out[2];
    row = !dense ? p.out[2] : p.channels_last ? p.batch * image : image;
    channel_stride = p.channels_last ? 1 : all;
    pixel_stride = steps[2] * unit;
    row_step[0] = steps[0] * size[1] * size[2] * unit, row_step[1] = steps[1] * size[2] * unit;
    image_step = channels * all;
    for (int d = 0; d < 3; ++d) q[d] = p.out[d];
  }

  // Where pixel i stands (of channel 0), and how many pixels from there on follow at pixel_stride.
  int64_t run(int64_t i, int64_t& length) const {
    const int64_t in_image = i % image;
    length = row - (row > image ? i : in_image) % row;
    const int64_t d = in_image / (q[1] * q[2]), h = in_image / q[2] % q[1], w = in_image % q[2];
    return i / image * image_step + d * row_step[0] + h * row_step[1] + w * pixel_stride;
  }
};

class Pointwise {
 public:
  Pointwise(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o) : p(p), o(o), block_bytes(tiles.value[0] << 10) {}

  void product_over_channels(int threads) const;
  void wgrad(int threads) const;

 private:
  const ConvProblem& p;
  const ConvOperands& o;
  const int64_t block_bytes;
  const Side input{p, false}, output{p, true};
  const int64_t pixels = p.batch * output.image;
  const bool to_input = p.direction == Direction::dgrad;
  const bool add_bias = p.bias && p.direction == Direction::fprop;
  const bool plain = to_input || (!add_bias && p.activation == Activation::none);  // the product is the result
  const Side& source = to_input ? output : input;
  const Side& target = to_input ? input : output;

  Operand gradient() const {
    return {static_cast<const float*>(o.grad_output), static_cast<const float*>(o.saved), p.activation, 0, 0};
  }
  void pack_pixels(int64_t first, int64_t last, const Panels& to) const;
  void tile(int64_t channel, int64_t channels, int64_t first, int64_t last, int64_t rows, const float* a, const float* b) const;
  void store_channel_rows(int64_t channel, int64_t rows, int64_t first, int64_t last, const float* tile) const;
  void store_pixel_rows(int64_t first, int64_t rows, int64_t channel, int64_t columns, const float* tile) const;
  void put(int64_t at, int lanes, Vec x) const;
  struct Shares;
  void wgrad_unit(const Shares&, int64_t k_begin, int64_t k_end, int64_t first, int64_t last, float* sums, float* bias) const;
  void pack_reduced(const Side& side, Operand operand, int64_t channel, int64_t channels, int64_t first, int64_t last,
                    const Panels& to) const;
};

// All source channels of some pixels; w counts pixels from `first`.
void Pointwise::pack_pixels(int64_t first, int64_t last, const Panels& to) const {
  Operand from = gradient();
  if (!to_input) from = {static_cast<const float*>(o.input), nullptr, Activation::none, 0, 0};
  from.w_stride = source.pixel_stride, from.k_stride = source.channel_stride;
  for (int64_t i = first, length; i < last; i += length) {
    const int64_t offset = source.run(i, length);
    length = least(length, last - i);
    Operand run = from;
    run.data += offset;
    if (run.saved) run.saved += offset;
    pack(run, length, source.channels, to, i - first);
  }
}

// `lanes` results, through the activation, to `at`.
void Pointwise::put(int64_t at, int lanes, Vec x) const {
  const auto store = [&](Vec v, void* tensor) {
    float* const to = static_cast<float*>(tensor) + at;
    lanes == Vec::lanes ? v.store(to) : v.store(to, lanes);
  };
  if (to_input) return store(x, o.grad_input);
  if (o.output_saved) store(x, o.output_saved);
  store(activate(p.activation, x), o.output);
}

// Contiguous: `rows` channels of pixels first to last.
void Pointwise::store_channel_rows(int64_t channel, int64_t rows, int64_t first, int64_t last, const float* tile) const {
  for (int64_t i = first, length; i < last; i += length) {
    const int64_t offset = target.run(i, length);
    length = least(length, last - i);
    for (int64_t r = 0; r < rows; ++r) {
      const Vec bias(add_bias ? static_cast<const float*>(o.bias)[channel + r] : 0.0f);
      const int64_t at = offset + (channel + r) * target.channel_stride;
      const float* from = tile + r * tile_columns + (i - first);
      const int64_t step = target.pixel_stride == 1 ? Vec::lanes : 1;
      for (int64_t j = 0; j < length; j += step) {
        const int lanes = static_cast<int>(least(step, length - j));
        put(at + j * target.pixel_stride, lanes, Vec::load(from + j, lanes) + bias);
      }
    }
  }
}

// channels_last: `columns` channels of `rows` pixels.
void Pointwise::store_pixel_rows(int64_t first, int64_t rows, int64_t channel, int64_t columns, const float* tile) const {
  for (int64_t j = 0; j < columns; j += Vec::lanes) {
    const int lanes = static_cast<int>(least(Vec::lanes, columns - j));
    const Vec bias = add_bias ? Vec::load(static_cast<const float*>(o.bias) + channel + j, lanes) : Vec(0.0f);
    int64_t length = 0, at = 0;
    for (int64_t r = 0; r < rows; ++r, --length, at += target.pixel_stride) {
      if (length == 0) at = target.run(first + r, length) + channel + j;
      put(at, lanes, Vec::load(tile + r * tile_columns + j) + bias);
    }
  }
}

// One tile: straight into the tensor where it has all its `rows` there and wants neither bias nor activation, else by way
// of the stack (to read it back from the tensor would wait for its cache lines: 6.8 ms instead of 2.3).
void Pointwise::tile(int64_t channel, int64_t channels, int64_t first, int64_t last, int64_t rows, const float* a, const float* b) const {
  alignas(64) float stack[tile_rows * tile_columns];
  const int64_t here = p.channels_last ? last - first : channels;
  const int columns = static_cast<int>(p.channels_last ? channels : last - first);
  int64_t length;
  const int64_t at = target.run(first, length) + channel * target.channel_stride;
  const bool whole = here == rows && length >= last - first && (p.channels_last || target.pixel_stride == 1);
  const auto product_into = [&](float* to, int64_t stride) {
    product(static_cast<int>(rows), a, b, source.channels, 256, {to, stride, columns});
  };
  if (whole && plain)
    return product_into(static_cast<float*>(to_input ? o.grad_input : o.output) + at,
                        p.channels_last ? target.pixel_stride : target.channel_stride);
  product_into(stack, tile_columns);
  if (p.channels_last)
    store_pixel_rows(first, here, channel, columns, stack);
  else
    store_channel_rows(channel, here, first, last, stack);
}

// fprop and dgrad.
void Pointwise::product_over_channels(int threads) const {
  const int64_t depth = source.channels, blocks = ceil_div(target.channels, tile_rows);
  const int64_t rows = p.channels_last ? tile_rows : ceil_div(target.channels, most(1, blocks));
  const int64_t weight_panel = p.channels_last ? tile_columns : rows, pixel_panel = p.channels_last ? rows : tile_columns;
  const int64_t panels = ceil_div(target.channels, weight_panel);
  Scratch<float> weight(panels * weight_panel * depth);
  const Operand from_weight{static_cast<const float*>(o.weight), nullptr, Activation::none, to_input ? 1 : p.in_channels,
                            to_input ? p.in_channels : 1};
  parallel_for(threads, target.channels, weight_panel, [&](int64_t begin, int64_t end) {
    pack(from_weight.at(begin, 0), end - begin, depth, {weight, weight_panel, weight_panel * depth}, begin);
  });
  // Blocks of pixels that fit the L2 cache, but no fewer than sixteen of them, to be shared out evenly.
  const int64_t fit = most(1, block_bytes / (4 * most(1, depth) * pixel_panel));
  const int64_t block = most(1, least(fit, ceil_div(pixels, 16 * pixel_panel))) * pixel_panel;
  parallel_for(threads, pixels, block, [&](int64_t first, int64_t last) {
    Scratch<float> packed(block * depth);
    pack_pixels(first, last, {packed, pixel_panel, pixel_panel * depth});
    for (int64_t channel = 0; channel < target.channels; channel += weight_panel) {
      const float* weights = weight + channel * depth;
      for (int64_t i = first; i < last; i += pixel_panel) {
        const float* values = packed + (i - first) * depth;
        tile(channel, least(weight_panel, target.channels - channel), i, least(last, i + pixel_panel), rows,
             p.channels_last ? values : weights, p.channels_last ? weights : values);
      }
    }
  });
}

// `channels` channels of some pixels, summed over pixels: k counts pixels from `first`.
void Pointwise::pack_reduced(const Side& side, Operand operand, int64_t channel, int64_t channels, int64_t first, int64_t last,
                             const Panels& to) const {
  operand.w_stride = side.channel_stride, operand.k_stride = side.pixel_stride;
  for (int64_t i = first, length; i < last; i += length) {
    const int64_t offset = side.run(i, length) + channel * side.channel_stride;
    length = least(length, last - i);
    Operand run = operand;
    run.data += offset;
    if (run.saved) run.saved += offset;
    pack(run, channels, length, to, 0, i - first);
  }
}

// wgrad. Enough units for a dozen threads: first blocks of result channels, eight panels each so that packing the input
// again for every block stays small; then shares of the pixels, whose sums are added in order.
struct Pointwise::Shares {
  int64_t width, k_block, k_blocks, c_room, count;

  Shares(const ConvProblem& p, int64_t pixels)
      : width(ceil_div(p.out_channels, most(1, ceil_div(p.out_channels, tile_rows)))),
        k_block(8 * width),
        k_blocks(ceil_div(p.out_channels, k_block)),
        c_room(ceil_div(p.in_channels, tile_columns) * tile_columns),
        count(most(1, least(ceil_div(16, k_blocks), ceil_div(pixels, 256)))) {}
  int64_t sums() const { return k_blocks * k_block * c_room; }
};

// The pixels first to last of the result channels k_begin to k_end: sums is [k][c_room], bias [k].
void Pointwise::wgrad_unit(const Shares& s, int64_t k_begin, int64_t k_end, int64_t first, int64_t last, float* sums,
                           float* bias) const {
  constexpr int64_t sum_block = 32;
  const int64_t room = least(512, last - first);
  Scratch<float> x(s.c_room * room), g(s.k_block * room);
  const Operand from_x{static_cast<const float*>(o.input), nullptr, Activation::none, 0, 0};
  __builtin_memset(sums, 0, s.k_block * s.c_room * sizeof(float));
  __builtin_memset(bias, 0, s.k_block * sizeof(float));
  for (int64_t begin = first; begin < last; begin += room) {
    const int64_t end = least(last, begin + room), depth = end - begin;
    pack_reduced(input, from_x, 0, p.in_channels, begin, end, {x, tile_columns, tile_columns * room});
    pack_reduced(output, gradient(), k_begin, k_end - k_begin, begin, end, {g, s.width, s.width * room});
    for (int64_t k = 0; k < k_end - k_begin; k += s.width) {
      const float* const panel = g + k * room;
      for (int64_t c = 0; c < p.in_channels; c += tile_columns) {
        const Result result{sums + k * s.c_room + c, s.c_room, static_cast<int>(least(tile_columns, p.in_channels - c)), true};
        product(static_cast<int>(s.width), panel, x + c * room, depth, sum_block, result);
      }
      for (int64_t r = 0; p.bias && r < s.width; ++r) {
        for (int64_t block = 0; block < depth; block += sum_block) {
          double sum = 0;
          for (int64_t i = block; i < least(depth, block + sum_block); ++i) sum += panel[i * s.width + r];
          bias[k + r] += static_cast<float>(sum);
        }
      }
    }
  }
}

void Pointwise::wgrad(int threads) const {
  const Shares s(p, pixels);
  Scratch<float> sums(s.count * s.sums()), bias(s.count * s.k_blocks * s.k_block);
  parallel_for(threads, s.count * s.k_blocks, 1, [&](int64_t unit, int64_t) {
    const int64_t share = unit / s.k_blocks, k = unit % s.k_blocks * s.k_block;
    wgrad_unit(s, k, least(p.out_channels, k + s.k_block), pixels * share / s.count, pixels * (share + 1) / s.count,
               sums + unit * s.k_block * s.c_room, bias + unit * s.k_block);
  });
  parallel_for(threads, p.out_channels, 16, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      for (int64_t c = 0; c < p.in_channels; ++c) {
        float sum = 0;
        for (int64_t share = 0; share < s.count; ++share) sum += sums[share * s.sums() + k * s.c_room + c];
        static_cast<float*>(o.grad_weight)[k * p.in_channels + c] = sum;
      }
      float sum = 0;
      for (int64_t share = 0; share < s.count; ++share) sum += bias[share * s.k_blocks * s.k_block + k];
      if (p.bias) static_cast<float*>(o.grad_bias)[k] = sum;
    }
  });
}

}  // namespace

void pointwise(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o, int threads) {
  const Pointwise pointwise(p, tiles, o);
  if (p.direction == Direction::wgrad) return pointwise.wgrad(threads);
  // A stride leaves input pixels that no output reads.
  if (p.direction == Direction::dgrad && p.stride[0] * p.stride[1] * p.stride[2] > 1) {
    const int64_t image = p.in_channels * p.in[0] * p.in[1] * p.in[2];
    parallel_for(threads, p.batch * image, 1 << 16, [&](int64_t begin, int64_t end) {
      __builtin_memset(static_cast<float*>(o.grad_input) + begin, 0, (end - begin) * sizeof(float));
    });
  }
  pointwise.product_over_channels(threads);
}

}  // namespace accelops::ACCELOPS_ISA
