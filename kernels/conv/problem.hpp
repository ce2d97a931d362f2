// One convolution problem as the C++ kernels see it, made once per ConvSpec and Config (kernels/conv/spec.py explains the
// fields), and the operands of one call. All spatial fields have three entries, D H W; a missing leading dimension has
// size 1, kernel 1, stride 1, padding 0, dilation 1.
#pragma once

#include <cstdint>

#include "number.hpp"

namespace accelops {

enum class Direction { fprop, dgrad, wgrad };
enum class Activation { none, relu, silu, gelu };

struct ConvProblem {
  Direction direction;
  DType dtype;
  bool channels_last;  // of every operand and result; else contiguous
  bool transposed;
  bool bias;  // fprop: add it; wgrad: also give its gradient
  Activation activation;
  int64_t batch, in_channels, out_channels, groups;
  int64_t in[3], out[3], kernel[3];
  int64_t stride[3], padding[3], dilation[3];
};

// The tensors of one call. Names are those of the forward convolution; each kernel reads and writes what its direction
// has, the rest is null.
//   fprop: reads input, weight, bias; writes output and, where an activation that is not ReLU will need it in the
//          backward, saved (the value before the activation; null when no gradient is wanted)
//   dgrad: reads grad_output, weight, saved; writes grad_input
//   wgrad: reads grad_output, input, saved; writes grad_weight and, if problem.bias, grad_bias
// In the backward, `saved` is the forward's output for ReLU, the value before the activation for SiLU and GELU, null for none.
struct ConvOperands {
  const void* input = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;
  const void* grad_output = nullptr;
  const void* saved = nullptr;
  void* output = nullptr;
  void* output_saved = nullptr;
  void* grad_input = nullptr;
  void* grad_weight = nullptr;
  void* grad_bias = nullptr;
};

// What a kernel is told of its configuration: up to eight numbers whose meaning its Config documents.
struct ConvTiles {
  int64_t value[8] = {};
};

using ConvKernel = void (*)(const ConvProblem&, const ConvTiles&, const ConvOperands&, int threads);

// A kernel bound to its problem: what dispatch keeps per Spec and calls.
struct ConvPlan {
  ConvProblem problem;
  ConvTiles tiles;
  ConvKernel kernel;

  // Half a million flops and elements take about 10 microseconds, as long as handing a share to a second thread.
  void run(const ConvOperands& operands, int threads) const {
    const ConvProblem& p = problem;
    const int64_t in = p.batch * p.in_channels * p.in[0] * p.in[1] * p.in[2], out = p.batch * p.out_channels * p.out[0] * p.out[1] * p.out[2];
    const int64_t terms = p.kernel[0] * p.kernel[1] * p.kernel[2] * p.in_channels / p.groups;
    kernel(problem, tiles, operands, 2 * out * terms + 8 * (in + out) < (1 << 19) ? 1 : threads);
  }
};

}  // namespace accelops
