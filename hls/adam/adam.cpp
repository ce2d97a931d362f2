// One step of Adam (Kingma & Ba 2015, algorithm 1) or AdamW (Loshchilov & Hutter 2019, algorithm 2), with AMSGrad's maximum
// (Reddi et al. 2018), over flat arrays: one pass, a beat of floats per cycle, 12 flops an element. Bytes an element: 28 in
// fp32; 28 with bf16 gradient and parameter and an fp32 master; AMSGrad adds 8.
//
// What needs more than fp32, the bias corrections, comes from the host, which computes it in fp64 and rounds once.
// Arrays begin at a beat and end with one: lanes beyond `numel` are read, ignored, and written as zero. Every array may be
// stepped in place. Xilinx's floating-point cores take subnormal numbers as zero (PG060), C-simulation does not.
#include "adam.hpp"

#include <hls_stream.h>

#include <cmath>

#include "trip.hpp"

namespace accelops {
namespace {

typedef hls::stream<Beat> Beats;

struct Factors {
  float grad, l2, decay, beta1_rest, beta2, beta2_rest, step_size, inv_root_correction2, eps;
  bool amsgrad, bf16;
};

struct State {
  float p, m, v, largest;
};

// II=1, `beats` trips.
void load(const Beat* from, Beats& to, uint32_t beats, AdamStage stage) {
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS PIPELINE II=1
    to.write(from[i]);
    TRIP(stage, 1);
  }
}

// II=1, `beats` trips.
void store(Beats& from, Beat* to, uint32_t beats, AdamStage stage) {
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS PIPELINE II=1
    to[i] = from.read();
    TRIP(stage, 1);
  }
}

State element(const Factors& f, float grad, State s) {
#pragma HLS INLINE
  float g = f.grad * grad;
  if (f.l2 != 0) g += f.l2 * s.p;  // 0 * infinity would be NaN
  s.m = s.m + f.beta1_rest * (g - s.m);
  s.v = f.beta2 * s.v + (f.beta2_rest * g) * g;
  const bool keep = s.largest > s.v || s.largest != s.largest;
  if (!f.amsgrad || !keep) s.largest = s.v;
  s.p = f.decay * s.p - (f.step_size * s.m) / (sqrtf(s.largest) * f.inv_root_correction2 + f.eps);
  return s;
}

// The streams of the step, in and out.
struct Lanes {
  Beat weight, exp_avg, exp_avg_sq, max, rounded;
};

// Beat i of the arrays of floats; with bf16, `grad` holds the gradients of two such beats, and `half` says which.
void beat(const Factors& f, const Beat& grad, Lanes& x, uint32_t inside, int half) {
#pragma HLS INLINE
  for (int lane = 0; lane < kFloats; ++lane) {
#pragma HLS UNROLL
    const float g = !f.bf16 ? float_lane(grad, lane) : bf16_lane(grad, half * kFloats + lane);
    State s = {float_lane(x.weight, lane), float_lane(x.exp_avg, lane), float_lane(x.exp_avg_sq, lane),
               float_lane(x.max, lane)};
    s = element(f, g, s);
    const bool in = uint32_t(lane) < inside;
    put_float(x.weight, lane, in ? s.p : 0);
    put_float(x.exp_avg, lane, in ? s.m : 0);
    put_float(x.exp_avg_sq, lane, in ? s.v : 0);
    put_float(x.max, lane, in ? s.largest : 0);
    put_bf16(x.rounded, half * kFloats + lane, in ? s.p : 0);
  }
}

// II=1, a trip for each beat of floats.
void step(Beats& grads, Beats& weights, Beats& exp_avgs, Beats& exp_avg_sqs, Beats& maxima, Beats& weights_out,
          Beats& exp_avgs_out, Beats& exp_avg_sqs_out, Beats& maxima_out, Beats& rounded_out, uint32_t numel, Factors f) {
  const uint32_t beats = beats_of(numel, kFloats);
  Beat grad = 0;
  Lanes x = {0, 0, 0, 0, 0};
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS PIPELINE II=1
    const int half = f.bf16 ? i & 1 : 0;
    if (half == 0) {
      grad = grads.read();
      x.rounded = 0;
    }
    x.weight = weights.read();
    x.exp_avg = exp_avgs.read();
    x.exp_avg_sq = exp_avg_sqs.read();
    if (f.amsgrad) x.max = maxima.read();
    beat(f, grad, x, numel - i * kFloats, half);
    weights_out.write(x.weight);
    exp_avgs_out.write(x.exp_avg);
    exp_avg_sqs_out.write(x.exp_avg_sq);
    if (f.amsgrad) maxima_out.write(x.max);
    if (f.bf16 && (half == 1 || i + 1 == beats)) rounded_out.write(x.rounded);
    TRIP(kStep, 1);
  }
}

void pass(const Beat* grad, const Beat* weight, const Beat* exp_avg, const Beat* exp_avg_sq, const Beat* max_exp_avg_sq,
          Beat* weight_out, Beat* exp_avg_out, Beat* exp_avg_sq_out, Beat* max_exp_avg_sq_out, Beat* rounded_out,
          uint32_t numel, uint32_t grad_beats, uint32_t beats, uint32_t max_beats, uint32_t rounded_beats, Factors f) {
#pragma HLS DATAFLOW
  Beats g("g"), p("p"), m("m"), v("v"), largest("largest"), p_out("p_out"), m_out("m_out"), v_out("v_out"),
      largest_out("largest_out"), rounded("rounded");
#pragma HLS STREAM variable=g depth=kStreamDepth
#pragma HLS STREAM variable=p depth=kStreamDepth
#pragma HLS STREAM variable=m depth=kStreamDepth
#pragma HLS STREAM variable=v depth=kStreamDepth
#pragma HLS STREAM variable=largest depth=kStreamDepth
#pragma HLS STREAM variable=p_out depth=kStreamDepth
#pragma HLS STREAM variable=m_out depth=kStreamDepth
#pragma HLS STREAM variable=v_out depth=kStreamDepth
#pragma HLS STREAM variable=largest_out depth=kStreamDepth
#pragma HLS STREAM variable=rounded depth=kStreamDepth
  load(grad, g, grad_beats, kLoadGrad);
  load(weight, p, beats, kLoadWeight);
  load(exp_avg, m, beats, kLoadExpAvg);
  load(exp_avg_sq, v, beats, kLoadExpAvgSq);
  load(max_exp_avg_sq, largest, max_beats, kLoadMax);
  step(g, p, m, v, largest, p_out, m_out, v_out, largest_out, rounded, numel, f);
  store(p_out, weight_out, beats, kStoreWeight);
  store(m_out, exp_avg_out, beats, kStoreExpAvg);
  store(v_out, exp_avg_sq_out, beats, kStoreExpAvgSq);
  store(largest_out, max_exp_avg_sq_out, max_beats, kStoreMax);
  store(rounded, rounded_out, rounded_beats, kStoreRounded);
}

}  // namespace
}  // namespace accelops

using accelops::Beat;

extern "C" void adam(const Beat* grad, const Beat* weight, const Beat* exp_avg, const Beat* exp_avg_sq,
                     const Beat* max_exp_avg_sq, Beat* weight_out, Beat* exp_avg_out, Beat* exp_avg_sq_out,
                     Beat* max_exp_avg_sq_out, Beat* rounded_out, uint32_t numel, uint32_t flags, float grad_factor,
                     float l2, float decay, float beta1_rest, float beta2, float beta2_rest, float step_size,
                     float inv_root_correction2, float eps, uint64_t* identity) {
#pragma HLS INTERFACE mode=m_axi port=grad bundle=gmem0 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=weight bundle=gmem1 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=exp_avg bundle=gmem2 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=exp_avg_sq bundle=gmem3 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=max_exp_avg_sq bundle=gmem4 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=weight_out bundle=gmem1 offset=slave max_write_burst_length=64 num_write_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=exp_avg_out bundle=gmem2 offset=slave max_write_burst_length=64 num_write_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=exp_avg_sq_out bundle=gmem3 offset=slave max_write_burst_length=64 num_write_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=max_exp_avg_sq_out bundle=gmem4 offset=slave max_write_burst_length=64 num_write_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=rounded_out bundle=gmem0 offset=slave max_write_burst_length=64 num_write_outstanding=16
#pragma HLS INTERFACE mode=s_axilite port=numel
#pragma HLS INTERFACE mode=s_axilite port=flags
#pragma HLS INTERFACE mode=s_axilite port=grad_factor
#pragma HLS INTERFACE mode=s_axilite port=l2
#pragma HLS INTERFACE mode=s_axilite port=decay
#pragma HLS INTERFACE mode=s_axilite port=beta1_rest
#pragma HLS INTERFACE mode=s_axilite port=beta2
#pragma HLS INTERFACE mode=s_axilite port=beta2_rest
#pragma HLS INTERFACE mode=s_axilite port=step_size
#pragma HLS INTERFACE mode=s_axilite port=inv_root_correction2
#pragma HLS INTERFACE mode=s_axilite port=eps
#pragma HLS INTERFACE mode=s_axilite port=identity
#pragma HLS INTERFACE mode=ap_ctrl_hs port=return
#pragma HLS INTERFACE mode=s_axilite port=return
  using namespace accelops;
  *identity = kAdamIdentity;
  const bool amsgrad = flags & kAmsgrad, bf16 = flags & kBf16;
  const Factors f = {grad_factor, l2, decay, beta1_rest, beta2, beta2_rest, step_size, inv_root_correction2,
                     eps, amsgrad, bf16};
  const uint32_t beats = beats_of(numel, kFloats), half_beats = beats_of(numel, kHalves);
  pass(grad, weight, exp_avg, exp_avg_sq, max_exp_avg_sq, weight_out, exp_avg_out, exp_avg_sq_out, max_exp_avg_sq_out,
       rounded_out, numel, bf16 ? half_beats : beats, beats, amsgrad ? beats : 0, bf16 ? half_beats : 0, f);
}
