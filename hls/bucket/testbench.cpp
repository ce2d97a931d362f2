// The reduction kernel against sums in plain loops, equal to the bit: no bucket, empty ones, odd ones, ones of many tiles;
// one rank and many; every pair of dtypes. Buckets lie side by side, so that one that writes too far spoils its neighbour.
#include "testbench.hpp"

#include "reduce.hpp"

namespace accelops {
namespace {

struct Problem {
  std::vector<uint32_t> numels;
  uint32_t ranks;
  bool wire_bf16, out_bf16;
};

void run(Testbench& bench, const Problem& problem) {
  const int wire_bits = problem.wire_bf16 ? 16 : 32, out_bits = problem.out_bf16 ? 16 : 32;
  const uint32_t wire_lanes = uint32_t(kPortBits / wire_bits), out_lanes = uint32_t(kPortBits / out_bits);
  std::vector<uint32_t> descriptors;
  uint32_t wire_beats = 0, out_beats = 0;
  for (uint32_t numel : problem.numels) {
    const uint32_t stride = beats_of(numel, wire_lanes) + bench.below(3);
    descriptors.insert(descriptors.end(), {wire_beats, stride, out_beats, numel});
    wire_beats += stride * problem.ranks;
    out_beats += beats_of(numel, out_lanes);
  }
  Array flats(wire_beats * wire_lanes, wire_bits), out(out_beats * out_lanes, out_bits);
  for (uint32_t i = 0; i < flats.numel(); ++i) {
    flats.set_value(i, bench.normal() * float(1u << bench.below(20)));
    if (!problem.wire_bf16 && bench.below(2)) flats.set(i, flats.get(i) >> 16 << 16 | 0x8000u);  // halfway between two bf16
  }

  const float scale = problem.ranks == 1 ? 1.0f : 1.0f / float(1 + bench.below(9));
  uint64_t identity = 0;
  reduce(flats.data(), flats.data(), flats.data(), flats.data(), out.data(), out.data(), out.data(), out.data(),
         descriptors.data(), uint32_t(problem.numels.size()), problem.ranks, scale,
         (problem.wire_bf16 ? kWireBf16 : 0) | (problem.out_bf16 ? kOutBf16 : 0), &identity);

  for (size_t b = 0; b < problem.numels.size(); ++b) {
    const uint32_t* const d = &descriptors[b * kDescriptorWords];
    for (uint32_t i = 0; i < beats_of(d[3], out_lanes) * out_lanes; ++i) {
      float sum = i < d[3] ? flats.value(d[0] * wire_lanes + i) : 0;
      for (uint32_t rank = 1; rank < problem.ranks && i < d[3]; ++rank)
        sum += flats.value((d[0] + rank * d[1]) * wire_lanes + i);
      const float scaled = i < d[3] ? scale * sum : 0;
      const uint32_t at = d[2] * out_lanes + i, expected = problem.out_bf16 ? nearest_bf16(scaled) : bits_of(scaled);
      bench.same("out", at, out.get(at), expected);
    }
  }
  out.check_end(bench, "out");
  bench.same("VERSION", 0, uint32_t(identity), uint32_t(kReduceIdentity));
  bench.same("CONFIG_HASH", 0, uint32_t(identity >> 32), uint32_t(kReduceIdentity >> 32));
}

}  // namespace
}  // namespace accelops

int main(int argc, char** argv) {
  using accelops::kReduceTileBeats;
  accelops::Testbench bench("reduce", argc, argv);
  const uint32_t tile = uint32_t(kReduceTileBeats * accelops::kFloats);
  const std::vector<std::vector<uint32_t>> buckets = {
      {}, {0}, {1}, {0, 7, 0, 33, 64, 1}, {tile, 5, 2 * tile + 1 + bench.below(tile)}};
  for (const auto& numels : buckets)
    for (uint32_t ranks : {1u, 2u, 5u})
      for (int dtypes = 0; dtypes < 4; ++dtypes) accelops::run(bench, {numels, ranks, (dtypes & 1) != 0, (dtypes & 2) != 0});
  return bench.status();
}
