// Python's way to the native bucket kernels: a BucketLayout made once per list of tensors, run on raw addresses.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bucket/layout.hpp"
#include "bucket/table.hpp"
#include "dtype_names.hpp"

namespace py = pybind11;

namespace accelops {
namespace {

const BucketKernels& kernels_of(const std::string& target) {
  const BucketKernels* kernels = bucket_kernels_of(target.c_str());
  if (!kernels) throw py::value_error("target: no native bucket kernel named " + target);
  return *kernels;
}

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void move(bool pack, const BucketLayout& layout, const std::string& target, const BucketLayout::Addresses& addresses,
          uintptr_t flat, const std::string& wire, uintptr_t residual, double scale, bool stream, int threads) {
  if (addresses.size() != layout.tensors().size()) throw py::value_error("addresses: one per tensor of the layout");
  const BucketKernels& kernels = kernels_of(target);
  std::vector<void*> data;
  data.reserve(addresses.size());
  for (uintptr_t address : addresses) data.push_back(pointer<void>(address));
  const BucketMove m{layout.tensors().data(), data.data(), static_cast<int64_t>(data.size()), layout.numel(), dtype_of(wire),
                     pointer<void>(flat), pointer<float>(residual), scale, stream};
  py::gil_scoped_release release;
  (pack ? kernels.pack : kernels.unpack)(m, threads);
}

void reduce(const std::string& target, const BucketLayout::Addresses& flats, int64_t numel, const std::string& wire, uintptr_t out,
            const std::string& dtype, double scale, bool stream, int threads) {
  if (flats.empty()) throw py::value_error("flats: at least one");
  const BucketKernels& kernels = kernels_of(target);
  std::vector<const void*> data;
  for (uintptr_t address : flats) data.push_back(pointer<const void>(address));
  const BucketReduce r{data.data(), static_cast<int64_t>(data.size()), numel, dtype_of(wire), dtype_of(dtype),
                       pointer<void>(out), scale, stream};
  py::gil_scoped_release release;
  kernels.reduce(r, threads);
}

}  // namespace

void bind_bucket(py::module_& m) {
  py::class_<BucketLayout>(m, "BucketLayout", "Where each tensor of a list lies in a flat buffer.")
      .def(py::init([](const BucketLayout::Extents& sizes, const BucketLayout::Extents& strides, const std::vector<std::string>& dtypes) {
             if (sizes.size() != dtypes.size() || strides.size() != dtypes.size()) throw py::value_error("one entry per tensor");
             std::vector<DType> types;
             for (const auto& name : dtypes) types.push_back(dtype_of(name));
             return std::make_unique<BucketLayout>(sizes, strides, types);
           }))
      .def_property_readonly("numel", &BucketLayout::numel)
      .def("overlap", &BucketLayout::overlap)
      .def("entangled", [](const BucketLayout& layout, const BucketLayout::Addresses& addresses, uintptr_t flat, int64_t bytes,
                           const std::string& wire) { return layout.entangled(addresses, flat, bytes, dtype_of(wire)); })
      .def("pack", [](const BucketLayout& layout, const std::string& target, const BucketLayout::Addresses& addresses, uintptr_t flat,
                      const std::string& wire, uintptr_t residual, double scale, bool stream,
                      int threads) { move(true, layout, target, addresses, flat, wire, residual, scale, stream, threads); })
      .def("unpack", [](const BucketLayout& layout, const std::string& target, const BucketLayout::Addresses& addresses, uintptr_t flat,
                        const std::string& wire, double scale, bool stream,
                        int threads) { move(false, layout, target, addresses, flat, wire, 0, scale, stream, threads); });
  m.def("bucket_reduce", &reduce);
}

}  // namespace accelops
