// Python's way to the C++ convolutions: make a ConvPlan once per Spec and Config, run it on raw pointers.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "conv/problem.hpp"
#include "conv/table.hpp"
#include "dtype_names.hpp"

namespace py = pybind11;

namespace accelops {
namespace {

template <class Enum>
Enum one_of(const std::string& name, std::initializer_list<const char*> names, const char* argument) {
  int i = 0;
  for (const char* candidate : names) {
    if (name == candidate) return static_cast<Enum>(i);
    ++i;
  }
  throw py::value_error(std::string(argument) + ": unknown value " + name);
}

void spatial(int64_t (&out)[3], const py::handle& tuple, int64_t missing) {
  const auto values = py::cast<std::vector<int64_t>>(tuple);
  const int first = 3 - static_cast<int>(values.size());
  for (int i = 0; i < 3; ++i) out[i] = i < first ? missing : values[i - first];
}

std::vector<int64_t> tail(const py::handle& shape) {
  auto values = py::cast<std::vector<int64_t>>(shape);
  values.erase(values.begin(), values.begin() + 2);
  return values;
}

ConvPlan make_plan(const py::object& spec, const std::string& family, const std::vector<int64_t>& tiles) {
  ConvPlan plan{};
  ConvProblem& p = plan.problem;
  p.direction = one_of<Direction>(py::cast<std::string>(spec.attr("direction")), {"fprop", "dgrad", "wgrad"}, "direction");
  p.activation = one_of<Activation>(py::cast<std::string>(spec.attr("activation")), {"none", "relu", "silu", "gelu"}, "activation");
  p.dtype = dtype_of(py::cast<std::string>(spec.attr("dtype")));
  p.channels_last = py::cast<std::string>(spec.attr("memory_format")) == "channels_last";
  p.transposed = py::cast<bool>(spec.attr("transposed"));
  p.bias = py::cast<bool>(spec.attr("bias"));
  p.groups = py::cast<int64_t>(spec.attr("groups"));
  const auto input = py::cast<std::vector<int64_t>>(spec.attr("input"));
  p.batch = input.at(0);
  p.in_channels = input.at(1);
  p.out_channels = py::cast<int64_t>(spec.attr("out_channels"));
  spatial(p.in, py::cast(tail(spec.attr("input"))), 1);
  spatial(p.out, py::cast(tail(spec.attr("output"))), 1);
  spatial(p.kernel, py::cast(tail(spec.attr("weight"))), 1);
  spatial(p.stride, spec.attr("stride"), 1);
  spatial(p.padding, spec.attr("padding"), 0);
  spatial(p.dilation, spec.attr("dilation"), 1);
  if (tiles.size() > 8) throw py::value_error("tiles: at most 8 numbers");
  for (size_t i = 0; i < tiles.size(); ++i) plan.tiles.value[i] = tiles[i];
  plan.kernel = conv_kernel(family.c_str());
  if (!plan.kernel) throw py::value_error("family: no native convolution named " + family);
  return plan;
}

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace

void bind_conv(py::module_& m) {
  py::class_<ConvPlan>(m, "ConvPlan", "A native convolution bound to its problem.")
      .def(py::init(&make_plan), py::arg("spec"), py::arg("family"), py::arg("tiles") = std::vector<int64_t>{})
      .def("fprop",
           [](const ConvPlan& plan, uintptr_t input, uintptr_t weight, uintptr_t bias, uintptr_t output, uintptr_t saved, int threads) {
             ConvOperands o;
             o.input = pointer<const void>(input), o.weight = pointer<const void>(weight), o.bias = pointer<const void>(bias);
             o.output = pointer<void>(output), o.output_saved = pointer<void>(saved);
             py::gil_scoped_release release;
             plan.run(o, threads);
           })
      .def("dgrad",
           [](const ConvPlan& plan, uintptr_t grad_output, uintptr_t weight, uintptr_t saved, uintptr_t grad_input, int threads) {
             ConvOperands o;
             o.grad_output = pointer<const void>(grad_output), o.weight = pointer<const void>(weight);
             o.saved = pointer<const void>(saved), o.grad_input = pointer<void>(grad_input);
             py::gil_scoped_release release;
             plan.run(o, threads);
           })
      .def("wgrad", [](const ConvPlan& plan, uintptr_t grad_output, uintptr_t input, uintptr_t saved, uintptr_t grad_weight,
                       uintptr_t grad_bias, int threads) {
        ConvOperands o;
        o.grad_output = pointer<const void>(grad_output), o.input = pointer<const void>(input);
        o.saved = pointer<const void>(saved), o.grad_weight = pointer<void>(grad_weight), o.grad_bias = pointer<void>(grad_bias);
        py::gil_scoped_release release;
        plan.run(o, threads);
      });
}

}  // namespace accelops
