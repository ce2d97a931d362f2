// Pack, unpack and reduce against the reference, on a list of dense, strided, empty and single-element tensors. A cast
// alone must be the reference's bit for bit; with a scale or a sum, two units in the last place of the result's scale.
#include <initializer_list>

#include "array.hpp"
#include "bucket/layout.hpp"
#include "bucket/table.hpp"

namespace accelops::self_check {
namespace {

const BucketLayout::Extents kSizes = {{70'003}, {1}, {5, 6}, {0, 3}, {1}, {3, 7, 130}, {9}};
const BucketLayout::Extents kStrides = {{1}, {1}, {12, 2}, {3, 1}, {5}, {1000, 3, 7}, {1}};
constexpr int64_t kRoom[] = {70'003, 1, 60, 0, 1, 3000, 9};  // elements from the first to the last
constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::f16};

// Rounding, overflow, the smallest numbers and what is none: ties to even in bf16 and f16, just below and above them.
const double kSpecial[] = {0.0, -0.0, 1 + 0x1p-8, 1 + 0x3p-8, 1 + 0x1p-8 + 0x1p-23, 1 + 0x1p-11, 1 + 0x3p-11,
                           1 + 0x1p-11 - 0x1p-23, 65519, 65520, -65536, 0x1p-14, 0x1p-14 - 0x1p-25, 0x1p-24, 0x1p-25,
                           0x1.000002p-25, 0x3p-25, 0x1p-26, 3.4e38, -3.4028234e38, INFINITY, -INFINITY, NAN};

std::vector<Array> tensors_of(const std::vector<DType>& types, Random& random) {
  std::vector<Array> tensors;
  for (size_t k = 0; k < types.size(); ++k) tensors.emplace_back(types[k], kRoom[k], random() % 4);
  return tensors;
}

BucketMove move_of(const BucketLayout& layout, std::vector<Array>& tensors, std::vector<void*>& data, Array& flat,
                   double scale, bool stream) {
  data.clear();
  for (Array& t : tensors) data.push_back(t.data());
  return {layout.tensors().data(), data.data(), static_cast<int64_t>(tensors.size()), layout.numel(), flat.type(),
          flat.data(), nullptr, scale, stream};
}

struct Variant {
  DType wire;
  double scale;
  bool feedback, stream;
};

std::string describe(const char* op, const Variant& v, int threads) {
  return std::string("bucket ") + op + " wire " + name(v.wire) + " scale " + std::to_string(v.scale) +
         (v.feedback ? " error feedback" : "") + (v.stream ? " streamed" : "") + ", " + std::to_string(threads) +
         " threads";
}

double allowed(const Variant& v, const Array& want) {
  double scale = 0;  // of what is finite
  for (int64_t i = 0; i < want.count(); ++i)
    if (std::isfinite(want[i])) scale = std::fmax(scale, std::fabs(want[i]));
  return v.scale == 1 && !v.feedback ? 0 : 2 * epsilon(want.type()) * scale;
}

// flat + residual: what error feedback conserves.
Array total(const Array& flat, const Array& residual) {
  Array sum(DType::f64, flat.count());
  for (int64_t i = 0; i < flat.count(); ++i) sum.set(i, flat[i] + residual[i]);
  return sum;
}

void check_pack_and_unpack(const Variant& v, const std::vector<DType>& types, int threads, Random& random,
                           Report& report) {
  const BucketLayout layout(kSizes, kStrides, types);
  std::vector<Array> tensors = tensors_of(types, random);
  for (Array& t : tensors) t.fill(random);
  if (v.scale == 1 && !v.feedback)
    for (size_t i = 0; i < std::size(kSpecial); ++i) tensors[0].set(static_cast<int64_t>(i * 31), kSpecial[i]);
  Array flat(v.wire, layout.numel(), random() % 4), want_flat = flat;
  Array residual = Array(DType::f32, layout.numel()).fill(random);
  residual.map([](double x) { return x / 1024; });
  Array want_residual = residual;
  std::vector<void*> data;

  BucketMove m = move_of(layout, tensors, data, want_flat, v.scale, v.stream);
  m.residual = v.feedback ? want_residual.as<float>() : nullptr;
  bucket_reference.pack(m, 1);
  m.flat = flat.data(), m.residual = v.feedback ? residual.as<float>() : nullptr;
  bucket_kernels_of("cpu")->pack(m, threads);
  report.check_near(flat, want_flat, allowed(v, want_flat), describe("pack", v, threads));
  if (v.feedback) {
    const double slack = 2 * epsilon(DType::f32) * want_flat.largest();
    report.check_near(total(flat, residual), total(want_flat, want_residual), slack,
                      describe("pack, residual", v, threads));
    report.check(residual.guards_intact(), describe("pack, residual's bounds", v, threads));
  }

  std::vector<Array> back = tensors_of(types, random), want_back = back;
  BucketMove there = move_of(layout, want_back, data, want_flat, v.scale, v.stream);
  bucket_reference.unpack(there, 1);
  there = move_of(layout, back, data, want_flat, v.scale, v.stream);
  bucket_kernels_of("cpu")->unpack(there, threads);
  for (size_t k = 0; k < back.size(); ++k)  // what lies between the elements of a strided tensor stays NaN
    report.check_near(back[k], want_back[k], allowed(v, want_back[k]),
                      describe("unpack", v, threads) + " to " + name(types[k]));
}

void check_reduce(const Variant& v, DType dtype, int64_t ranks, int threads, Random& random, Report& report) {
  const int64_t numel = 70'001;
  std::vector<Array> flats;
  std::vector<const void*> data;
  for (int64_t rank = 0; rank < ranks; ++rank) flats.push_back(Array(v.wire, numel).fill(random));
  for (const Array& flat : flats) data.push_back(flat.data());
  Array out(dtype, numel, random() % 4), want(dtype, numel);
  BucketReduce r{data.data(), ranks, numel, v.wire, dtype, want.data(), v.scale, v.stream};
  bucket_reference.reduce(r, 1);
  r.out = out.data();
  bucket_kernels_of("cpu")->reduce(r, threads);
  report.check_near(out, want, 2 * epsilon(dtype) * want.largest(),
                    describe("reduce", v, threads) + " to " + name(dtype));
}

}  // namespace

void check_bucket(Random& random, bool thorough, Report& report) {
  for (const DType wire : kTypes)
    for (const bool feedback : {false, true})
      for (const double scale : {1.0, 1 / 3.0})
        for (const bool stream : {false, true}) {
          if (!thorough && random() % 4) continue;
          const Variant v{wire, scale, feedback, stream};
          for (const DType first : kTypes) {
            std::vector<DType> types;
            for (size_t k = 0; k < kSizes.size(); ++k) types.push_back(k == 0 ? first : kTypes[random() % 3]);
            for (const int threads : {1, 2, 5}) {
              check_pack_and_unpack(v, types, threads, random, report);
              if (!feedback) check_reduce(v, first, 1 + static_cast<int64_t>(random() % 4), threads, random, report);
            }
          }
        }
}

}  // namespace accelops::self_check
