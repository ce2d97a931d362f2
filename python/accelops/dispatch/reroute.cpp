// The override of aten::convolution and aten::convolution_backward at the CPU and CUDA keys, and its fast path.
//
// A call's sizes, strides, dtypes and parameters form a key. What dispatch has once decided for a key (torch's own kernel,
// or native plans) is remembered here, and every later call goes straight there: no Python, no GIL, about half a
// microsecond. A key seen for the first time, and whatever has no native plan, goes to a Python op of the same schema
// (`accelops::_convolution`, `accelops::_convolution_backward` in reroute.py), which decides, runs and calls remember_*.
//
// The override is registered once and never removed (removing it under running threads crashes); `set_scope(0)` sends
// every call to torch's kernel at once.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <stdexcept>
#include <string>

#include "boxed.hpp"
#include "decisions.hpp"
#include "own_convolution.hpp"

namespace py = pybind11;

namespace accelops {
namespace {

namespace abi = torch_abi;
using abi::Handle;
using abi::Value;
using boxed::take_optional;

Table& table() {
  static Table* t = new Table;  // outlives threads that convolve during interpreter shutdown
  return *t;
}

std::atomic<int64_t> scope{0};        // 0: off. Otherwise the number of the scope in force (reroute.py counts them)
thread_local int64_t target = 0;      // the number of the target asked for by accelops.use in this thread, 0 for none
thread_local Key* deciding = nullptr; // the key of the call that Python is deciding in this thread
thread_local bool failed = false;     // Python raised; the exception waits in reroute.py

// ---- the two ways of a call ----------------------------------------------------------------------------------------

// Reports what the Python op raised. A RuntimeError keeps its message through any C++ of torch's; another type travels as
// pybind11's exception, which torch's bindings restore.
[[noreturn]] void raise_pending() {
  py::gil_scoped_acquire gil;
  py::object error = py::module_::import("accelops.dispatch.reroute").attr("take_pending")();
  if (py::type::of(error).is(py::handle(PyExc_RuntimeError))) throw std::runtime_error(py::str(error));
  PyErr_SetObject(py::type::of(error).ptr(), error.ptr());
  throw py::error_already_set();
}

// Calls the Python op with `stack` (which it consumes), so that it may remember its decision under `key`.
void decide_in_python(const char* op, Key& key, Value* stack) {
  Key* const outer = deciding;
  deciding = key.fits() ? &key : nullptr;
  const abi::Error error = abi::torch_call_dispatcher(op, "", stack, abi::kVersion);
  deciding = outer;
  if (failed) {
    failed = false;
    raise_pending();
  }
  abi::check(error, op);
}

Tensor empty(const Step& step) {
  Tensor t;
  constexpr int32_t kDtypes[] = {6, 7, 15, 5};  // at::ScalarType of DType; frozen by torch's ABI
  abi::check(abi::aoti_torch_empty_strided(step.sizes.size(), step.sizes.data(), step.strides.data(),
                                           kDtypes[static_cast<int>(step.plan.problem.dtype)], 0, 0, &t.handle),
             "empty_strided");
  return t;
}

int threads() {
  uint32_t n = 1;
  abi::torch_get_num_threads(&n);
  return static_cast<int>(n);
}

void* data_or_null(const Tensor& t) { return t.handle ? t.data() : nullptr; }

template <abi::Device device>
void convolution(Value* stack, uint64_t, uint64_t) {
  Tensor input(stack[0]), weight(stack[1]), bias;
  if (auto v = take_optional(stack[2])) bias = Tensor(*v);
  if (!bias.defined()) bias = Tensor();  // None arrives as an undefined tensor
  const Parameters p(stack + 3);

  const auto torchs = [&] {
    Tensor out;
    const abi::Error error = abi::own<device>.forward(
        input.handle, weight.handle, bias.handle ? const_cast<Handle*>(&bias.handle) : nullptr, p.stride.value, p.stride.size,
        p.padding.value, p.padding.size, p.dilation.value, p.dilation.size, p.transposed, p.output_padding.value,
        p.output_padding.size, p.groups, &out.handle);
    if (error == 0) stack[0] = out.release();
    return error == 0;
  };

  const int64_t in_force = scope.load(std::memory_order_acquire);
  if (in_force == 0 && torchs()) return;
  Key key;
  key.add(2 * device), key.add(in_force), key.add(target);
  key.add(input), key.add(weight);
  if (bias.handle) key.add(bias);
  key.add(p);
  if (const auto decision = table().find(key)) {
    if (!decision->first) {
      if (torchs()) return;
    } else {
      decision->prepare({&input, &weight, &bias});
      Tensor out = empty(*decision->first);
      ConvOperands o;
      o.input = input.data(), o.weight = weight.data(), o.bias = data_or_null(bias), o.output = out.data();
      const ConvPlan& plan = decision->first->plan;
      plan.run(o, threads());
      stack[0] = out.release();
      return;
    }
  }
  // First sight, or torch's kernel failed: Python decides, or meets the same failure and raises torch's own error.
  Value call[9] = {input.share(), weight.share(), bias.handle ? reinterpret_cast<Value>(new Value(bias.share())) : 0};
  p.push(call + 3);
  decide_in_python("accelops::_convolution", key, call);
  stack[0] = call[0];
}

template <abi::Device device>
void convolution_backward(Value* stack, uint64_t, uint64_t) {
  Tensor grad_output(stack[0]), input(stack[1]), weight(stack[2]);
  std::optional<Ints> bias_sizes;
  if (auto v = take_optional(stack[3])) bias_sizes = Ints(*v);
  const Parameters p(stack + 4);
  const Ints mask(stack[10]);

  Tensor out[3];
  const auto give = [&] {
    for (int i = 0; i < 3; ++i) {
      if (!out[i].handle) abi::check(abi::aoti_torch_new_uninitialized_tensor(&out[i].handle), "new_uninitialized_tensor");
      stack[i] = out[i].release();
    }
  };
  const auto torchs = [&](const int32_t (&wanted)[3]) {
    // Where there is nothing to sum, torch reads the bias gradient's shape from bias_sizes, which its C function has by
    // then forgotten (torch 2.11: it hands on a reference to a temporary). Python calls the kernel itself.
    if (wanted[2] && !grad_output.has_elements()) return false;
    const int64_t* sizes = bias_sizes ? bias_sizes->value : nullptr;
    return abi::own<device>.backward(grad_output.handle, input.handle, weight.handle, bias_sizes ? &sizes : nullptr,
                                         bias_sizes ? bias_sizes->size : 0, p.stride.value, p.stride.size, p.padding.value,
                                         p.padding.size, p.dilation.value, p.dilation.size, p.transposed,
                                         p.output_padding.value, p.output_padding.size, p.groups, wanted, 3, &out[0].handle,
                                         &out[1].handle, &out[2].handle) == 0;
  };

  const int64_t in_force = scope.load(std::memory_order_acquire);
  if (in_force == 0 && torchs({mask.value[0] != 0, mask.value[1] != 0, mask.value[2] != 0})) return give();
  Key key;
  key.add(2 * device + 1), key.add(in_force), key.add(target);
  key.add(grad_output), key.add(input), key.add(weight);
  key.add(bias_sizes ? bias_sizes->value[0] : -1);
  key.add(p), key.add(mask);
  if (const auto decision = table().find(key)) {
    const int32_t wanted[3] = {mask.value[0] != 0 && !decision->first, mask.value[1] != 0 && !decision->second,
                         mask.value[2] != 0 && !decision->second};
    if (!(wanted[0] || wanted[1] || wanted[2]) || torchs(wanted)) {
      decision->prepare({&grad_output, &input, &weight});
      ConvOperands o;
      o.grad_output = grad_output.data(), o.input = input.data(), o.weight = weight.data();
      if (decision->first) {
        out[0] = empty(*decision->first);
        o.grad_input = out[0].data();
        const ConvPlan& plan = decision->first->plan;
        plan.run(o, threads());
      }
      if (decision->second) {
        const ConvPlan& plan = decision->second->plan;
        out[1] = empty(*decision->second);
        o.grad_weight = out[1].data();
        if (plan.problem.bias) {
          Step vector{plan, {plan.problem.out_channels}, {1}};
          out[2] = empty(vector);
          o.grad_bias = out[2].data();
        }
        plan.run(o, threads());
      }
      return give();
    }
  }
  Value call[11] = {grad_output.share(), input.share(), weight.share(),
                    bias_sizes ? reinterpret_cast<Value>(new Value(bias_sizes->list())) : 0};
  p.push(call + 4);
  call[10] = mask.list();
  decide_in_python("accelops::_convolution_backward", key, call);
  for (int i = 0; i < 3; ++i) stack[i] = call[i];
}

template <abi::Device device>
std::string register_override(const char* key) {
  static const std::string problem = [key] {
    std::string missing = abi::load();
    if (missing.empty()) missing = abi::find_own<device>();
    if (!missing.empty()) return missing;
    abi::Library library = nullptr;
    abi::check(abi::aoti_torch_library_init_impl("aten", key, __FILE__, __LINE__, &library), "library_init_impl");
    abi::check(abi::torch_library_impl(library, "convolution", convolution<device>, abi::kVersion), "library_impl");
    abi::check(abi::torch_library_impl(library, "convolution_backward", convolution_backward<device>, abi::kVersion), "library_impl");
    return std::string();
  }();
  return problem;
}

std::optional<Step> step(const py::object& plan, const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
  if (plan.is_none()) return std::nullopt;
  return Step{py::cast<const ConvPlan&>(plan), sizes, strides};
}

}  // namespace

void bind_reroute(py::module_& m) {
  using Shape = std::vector<int64_t>;
  m.def(
      "register_override",
      [](const std::string& key) {
        return key == "CUDA" ? register_override<abi::cuda>("CUDA") : register_override<abi::cpu>("CPU");
      },
      py::arg("key"),
      "Override torch's convolution at a backend key (CPU or CUDA), once. Returns what torch lacks for it, or an empty string.");
  m.def("set_scope", [](int64_t number) { scope.store(number, std::memory_order_release); }, py::arg("number"),
        "Which scope of reroute.py is in force, for all threads; 0 switches the override off.");
  m.def("set_target", [](int64_t number) { target = number; }, py::arg("number"),
        "Which target this thread asked for (its number in targets.TARGETS, from 1), 0 for none.");
  m.def("forget", [] { table().clear(); }, "Forget every decision, after a tuned table has changed.");
  m.def("decisions", [] { return table().size(); }, "How many decisions are remembered.");
  m.def("set_failed", [] { failed = true; }, "The Python op that is running in this thread has raised.");
  using Copy = std::array<bool, 3>;
  m.def(
      "remember_forward",
      [](const py::object& plan, const Shape& sizes, const Shape& strides, Copy copy, int64_t memory_format) {
        if (deciding) table().put(*deciding, {step(plan, sizes, strides), std::nullopt, copy, memory_format});
      },
      py::arg("plan"), py::arg("sizes") = Shape{}, py::arg("strides") = Shape{}, py::arg("copy") = Copy{}, py::arg("memory_format") = 0,
      "The call being decided takes `plan` (None: torch's kernel) from now on. `sizes` and `strides` are the result's; `copy` "
      "says which of input, weight, bias must be brought into `memory_format` (torch's number) first.");
  m.def(
      "remember_backward",
      [](const py::object& dgrad, const Shape& sizes, const Shape& strides, const py::object& wgrad, const Shape& weight_sizes,
         const Shape& weight_strides, Copy copy, int64_t memory_format) {
        if (deciding)
          table().put(*deciding, {step(dgrad, sizes, strides), step(wgrad, weight_sizes, weight_strides), copy, memory_format});
      },
      "The same for a backward: a plan for dgrad and one for wgrad; `copy` is of grad_output, input, weight.");
}

}  // namespace accelops
