// Reduction of k flat buffers, bucket by bucket: summed in the order of the ranks, so that the result does not depend on
// how work is dealt out; scaled and rounded once. An element costs k flops, and k reads and a write of its dtype.
//
// A schedule cuts the buckets into tiles and deals them in turn to one engine a port, so that all ports of memory are
// busy. An engine reads its tile's rows, rank after rank, adds them up on the chip, rounds and writes: four stages that
// overlap. A tile is long (kReduceTileBeats) because each row begins with the latency of memory, once; a short row takes
// kReduceAdderCycles all the same, so that a sum is complete before the next rank adds to it.
//
// Buckets begin at a beat, in and out; lanes beyond the last element are written as zero. Xilinx's floating-point cores
// take subnormal numbers as zero (PG060), C-simulation does not.
#include "reduce.hpp"

#include <hls_stream.h>

#include "trip.hpp"

namespace accelops {
namespace {

// A piece of a bucket; one without elements ends the engine's work.
struct Tile {
  uint32_t flat, rank_stride, out;  // in beats: of the first rank, between ranks, of the result
  uint32_t numel;
};

// What is the same for the whole call.
struct Call {
  uint32_t ranks;
  float scale;
  bool wire_bf16, out_bf16;

  uint32_t wire_beats(uint32_t numel) const { return beats_of(numel, wire_bf16 ? kHalves : kFloats); }
  uint32_t out_beats(uint32_t numel) const { return beats_of(numel, out_bf16 ? kHalves : kFloats); }
};

typedef hls::stream<Tile> Tiles;
typedef hls::stream<Beat> Beats;

// Sums of a wire beat: kHalves floats, of which an fp32 beat fills the first half.
struct Sums {
  float lane[kHalves];
};
typedef hls::stream<Sums> SumBeats;

// II=1: four words a bucket, then its tiles; and an end for each engine.
void schedule(const uint32_t* descriptors, Tiles tiles[kEngines], uint32_t buckets, Call call) {
  const uint32_t tile_numel = kReduceTileBeats * (call.wire_bf16 ? kHalves : kFloats);
  const uint32_t tile_out = call.out_beats(tile_numel);
  uint32_t engine = 0;
  for (uint32_t b = 0; b < buckets; ++b) {
    uint32_t word[kDescriptorWords];
#pragma HLS ARRAY_PARTITION variable=word complete
    for (int i = 0; i < kDescriptorWords; ++i) {
#pragma HLS PIPELINE II=1
      word[i] = descriptors[b * kDescriptorWords + i];
      TRIP(kSchedule, 1);
    }
    Tile tile = {word[0], word[1], word[2], 0};
    for (uint32_t left = word[3]; left > 0; left -= tile.numel) {
#pragma HLS PIPELINE II=1
      tile.numel = left < tile_numel ? left : tile_numel;
      tiles[engine].write(tile);
      engine = engine + 1 == uint32_t(kEngines) ? 0 : engine + 1;
      tile.flat += kReduceTileBeats;
      tile.out += tile_out;
      TRIP(kSchedule, 1);
    }
  }
  for (int e = 0; e < kEngines; ++e) {
#pragma HLS UNROLL
    tiles[e].write(Tile());
  }
}

// II=1, a trip for each beat of each rank.
void load(const Beat* flats, Tiles& tiles, Tiles& passed, Beats& beats, Call call, int engine) {
  (void)engine;
  Tile tile = tiles.read();
  for (; tile.numel; tile = tiles.read()) {
    passed.write(tile);
    const uint32_t row = call.wire_beats(tile.numel);
    for (uint32_t rank = 0; rank < call.ranks; ++rank)
      for (uint32_t i = 0; i < row; ++i) {
#pragma HLS PIPELINE II=1
        beats.write(flats[tile.flat + rank * tile.rank_stride + i]);
        TRIP(kLoad * kEngines + engine, 1);
      }
  }
  passed.write(tile);
}

// II=1, a trip for each beat of each rank, and idle ones up to kReduceAdderCycles in a row that is shorter.
void accumulate(Tiles& tiles, Tiles& passed, Beats& beats, SumBeats& sums, Call call, int engine) {
  (void)engine;
  float partial[kReduceTileBeats][kHalves];
#pragma HLS ARRAY_PARTITION variable=partial dim=2 complete
  Tile tile = tiles.read();
  for (; tile.numel; tile = tiles.read()) {
    passed.write(tile);
    const uint32_t row = call.wire_beats(tile.numel), trips = row < uint32_t(kReduceAdderCycles) ? kReduceAdderCycles : row;
    for (uint32_t rank = 0; rank < call.ranks; ++rank)
      for (uint32_t i = 0; i < trips; ++i) {
#pragma HLS PIPELINE II=1
#pragma HLS DEPENDENCE variable=partial type=inter direction=RAW distance=16 dependent=true
        TRIP(kAccumulate * kEngines + engine, 1);
        if (i >= row) continue;
        const Beat beat = beats.read();
        Sums scaled;
        for (int lane = 0; lane < kHalves; ++lane) {
#pragma HLS UNROLL
          const float x = call.wire_bf16 ? bf16_lane(beat, lane) : float_lane(beat, lane % kFloats);
          const float sum = rank == 0 ? x : partial[i][lane] + x;
          partial[i][lane] = sum;
          scaled.lane[lane] = sum * call.scale;
        }
        if (rank + 1 == call.ranks) sums.write(scaled);
      }
  }
  passed.write(tile);
}

// II=1, a trip for each kFloats elements: with fp32 out that is a beat, with bf16 half of one.
void round(Tiles& tiles, Tiles& passed, SumBeats& sums, Beats& beats, Call call, int engine) {
  (void)engine;
  Tile tile = tiles.read();
  for (; tile.numel; tile = tiles.read()) {
    passed.write(tile);
    const uint32_t words = beats_of(tile.numel, kFloats);
    Sums held;
    Beat halves = 0;
    for (uint32_t w = 0; w < words; ++w) {
#pragma HLS PIPELINE II=1
      const int odd = w & 1, from = call.wire_bf16 ? odd : 0;
      if (from == 0) held = sums.read();
      Beat floats = 0;
      if (!odd) halves = 0;
      for (int lane = 0; lane < kFloats; ++lane) {
#pragma HLS UNROLL
        const bool inside = uint32_t(lane) < tile.numel - w * kFloats;
        const float x = inside ? held.lane[from * kFloats + lane] : 0;
        put_float(floats, lane, x);
        put_bf16(halves, odd * kFloats + lane, x);
      }
      if (!call.out_bf16) beats.write(floats);
      if (call.out_bf16 && (odd || w + 1 == words)) beats.write(halves);
      TRIP(kRound * kEngines + engine, 1);
    }
  }
  passed.write(tile);
}

// II=1, a trip for each beat of the result.
void store(Tiles& tiles, Beats& beats, Beat* out, Call call, int engine) {
  (void)engine;
  for (Tile tile = tiles.read(); tile.numel; tile = tiles.read()) {
    const uint32_t row = call.out_beats(tile.numel);
    for (uint32_t i = 0; i < row; ++i) {
#pragma HLS PIPELINE II=1
      out[tile.out + i] = beats.read();
      TRIP(kStore * kEngines + engine, 1);
    }
  }
}

void reduce_tiles(const Beat* flats, Tiles& tiles, Beat* out, Call call, int engine) {
#pragma HLS DATAFLOW
  Tiles loaded("loaded"), summed("summed"), rounded("rounded");
  Beats inputs("inputs"), results("results");
  SumBeats sums("sums");
#pragma HLS STREAM variable=loaded depth=4
#pragma HLS STREAM variable=summed depth=4
#pragma HLS STREAM variable=rounded depth=4
#pragma HLS STREAM variable=inputs depth=kStreamDepth
#pragma HLS STREAM variable=results depth=kStreamDepth
#pragma HLS STREAM variable=sums depth=kReduceTileBeats
  load(flats, tiles, loaded, inputs, call, engine);
  accumulate(loaded, summed, inputs, sums, call, engine);
  round(summed, rounded, sums, results, call, engine);
  store(rounded, results, out, call, engine);
}

void reduce_buckets(const Beat* flats0, const Beat* flats1, const Beat* flats2, const Beat* flats3, Beat* out0, Beat* out1,
                    Beat* out2, Beat* out3, const uint32_t* descriptors, uint32_t buckets, Call call) {
#pragma HLS DATAFLOW
  Tiles tiles[kEngines];
#pragma HLS STREAM variable=tiles depth=4
  schedule(descriptors, tiles, buckets, call);
  reduce_tiles(flats0, tiles[0], out0, call, 0);
  reduce_tiles(flats1, tiles[1], out1, call, 1);
  reduce_tiles(flats2, tiles[2], out2, call, 2);
  reduce_tiles(flats3, tiles[3], out3, call, 3);
}

}  // namespace
}  // namespace accelops

using accelops::Beat;

extern "C" void reduce(const Beat* flats0, const Beat* flats1, const Beat* flats2, const Beat* flats3, Beat* out0,
                       Beat* out1, Beat* out2, Beat* out3, const uint32_t* descriptors, uint32_t buckets, uint32_t ranks,
                       float scale, uint32_t flags, uint64_t* identity) {
#pragma HLS INTERFACE mode=m_axi port=flats0 bundle=gmem0 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=flats1 bundle=gmem1 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=flats2 bundle=gmem2 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=flats3 bundle=gmem3 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=out0 bundle=gmem0 offset=slave max_write_burst_length=64 num_write_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=out1 bundle=gmem1 offset=slave max_write_burst_length=64 num_write_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=out2 bundle=gmem2 offset=slave max_write_burst_length=64 num_write_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=out3 bundle=gmem3 offset=slave max_write_burst_length=64 num_write_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=descriptors bundle=gmem4 offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=s_axilite port=buckets
#pragma HLS INTERFACE mode=s_axilite port=ranks
#pragma HLS INTERFACE mode=s_axilite port=scale
#pragma HLS INTERFACE mode=s_axilite port=flags
#pragma HLS INTERFACE mode=s_axilite port=identity
#pragma HLS INTERFACE mode=ap_ctrl_hs port=return
#pragma HLS INTERFACE mode=s_axilite port=return
  using namespace accelops;
  *identity = kReduceIdentity;
  const Call call = {ranks, scale, (flags & kWireBf16) != 0, (flags & kOutBf16) != 0};
  reduce_buckets(flats0, flats1, flats2, flats3, out0, out1, out2, out3, descriptors, ranks ? buckets : 0, call);
}
