// Python's way to the native Adam steps: an AdamTable reads lists of torch tensors as they are now, says whether a native
// kernel may step them, and does. It reads anew at each step (0.3 us a parameter), so nothing can be out of date.
// read_lists does the reading for tensors of other devices, which Python steps.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <string>
#include <vector>

#include "adam/table.hpp"
#include "adam/tensor.hpp"

namespace py = pybind11;

namespace accelops {
namespace {

// c10/core/ScalarType.h; a complex number is two real ones.
struct TorchType {
  int32_t code;
  const char* name;
  DType real;
  int parts;
};
constexpr TorchType kTypes[] = {{5, "float16", DType::f16, 1},       {6, "float32", DType::f32, 1},
                                {7, "float64", DType::f64, 1},       {15, "bfloat16", DType::bf16, 1},
                                {9, "complex64", DType::f32, 2},     {10, "complex128", DType::f64, 2}};

const TorchType* type_of(int32_t code) {
  for (const TorchType& t : kTypes)
    if (t.code == code) return &t;
  return nullptr;
}

// The items of a list or tuple of tensors.
class List {
 public:
  explicit List(const py::handle& list) : items_(py::reinterpret_steal<py::object>(PySequence_Fast(list.ptr(), "expected a list of tensors"))) {
    if (!items_) throw py::error_already_set();
  }
  size_t size() const { return static_cast<size_t>(PySequence_Fast_GET_SIZE(items_.ptr())); }

  // Throws Refused for what is not exactly a Tensor or a Parameter: a subclass may mean something else by its memory.
  Tensor operator[](size_t k) const;

 private:
  py::object items_;
};

struct Refused {
  std::string why;
};

Tensor List::operator[](size_t k) const {
  static PyObject* const tensor = py::object(py::module_::import("torch").attr("Tensor")).release().ptr();
  static PyObject* const parameter = py::object(py::module_::import("torch.nn").attr("Parameter")).release().ptr();
  static PyObject* const cdata = PyUnicode_InternFromString("_cdata");
  PyObject* const item = PySequence_Fast_GET_ITEM(items_.ptr(), static_cast<Py_ssize_t>(k));
  PyObject* const type = reinterpret_cast<PyObject*>(Py_TYPE(item));
  if (type != tensor && type != parameter) throw Refused{"a tensor of a class of its own"};
  const auto impl = py::reinterpret_steal<py::object>(PyObject_GetAttr(item, cdata));
  if (!impl) throw py::error_already_set();
  Tensor result(PyLong_AsSize_t(impl.ptr()));
  if (!result.strided()) throw Refused{"a tensor that is not strided"};
  return result;
}

Tensor on_cpu(Tensor tensor) {
  if (tensor.device_type() != 0) throw Refused{"a tensor that is not on the CPU"};
  return tensor;
}

// (kinds, addresses) of lists of tensors. `kinds` is all that can be asked of them but where they are: how many each list
// has; dtype, device, shape and strides of each; equal for lists that are alike, as bytes to look them up by. `addresses` are
// 8 bytes a tensor, one bytes object a list. None where there is a tensor of a class of its own, or not strided.
py::object read_lists(const py::sequence& lists) {
  if (!Tensor::readable()) return py::none();
  std::string kinds;
  const auto put = [&](const void* value, size_t bytes) { kinds.append(static_cast<const char*>(value), bytes); };
  py::tuple addresses(lists.size());
  try {
    for (size_t l = 0; l < lists.size(); ++l) {
      const List list(lists[l]);
      const int64_t count = static_cast<int64_t>(list.size());
      put(&count, sizeof count);
      std::vector<void*> at(list.size());
      for (size_t k = 0; k < at.size(); ++k) {
        Tensor tensor = list[k];
        const Layout layout = tensor.layout();
        const int32_t kind[] = {tensor.dtype(), tensor.device_type(), tensor.device_index(), static_cast<int32_t>(layout.dim)};
        put(kind, sizeof kind);
        put(layout.sizes, layout.dim * sizeof(int64_t));
        put(layout.strides, layout.dim * sizeof(int64_t));
        at[k] = tensor.data();
      }
      addresses[l] = py::bytes(reinterpret_cast<const char*>(at.data()), at.size() * sizeof(void*));
    }
  } catch (const Refused&) {
    return py::none();
  }
  return py::make_tuple(py::bytes(kinds), addresses);
}

class AdamTable {
 public:
  AdamTable(const py::handle& params, const py::handle& grads, const py::handle& exp_avgs, const py::handle& exp_avg_sqs,
            const py::handle& max_exp_avg_sqs, const py::handle& state_steps, const py::handle& masters, const py::handle& emas) {
    try {
      if (!Tensor::readable()) throw Refused{"torch's C functions were not found; torch 2.9 or newer has them"};
      read(List(params), List(grads), {List(exp_avgs), List(exp_avg_sqs), List(max_exp_avg_sqs), List(masters), List(emas)}, List(state_steps));
    } catch (const Refused& refused) {
      why = refused.why;
      tensors_.clear();
    }
  }

  std::string why;  // not empty: these lists are not for native kernels
  bool mixed = false;  // that is only because the parameters have different dtypes
  std::vector<size_t> irregular;  // parameters with gaps, or whose tensors hold their elements in different orders
  int64_t numel = 0;
  const char *dtype = "float32", *state_dtype = "float32";

  size_t size() const { return tensors_.size(); }

  void step(const std::string& target, double lr, double beta1, double beta2, double eps, double weight_decay, bool decoupled,
            double grad_factor, double ema_decay, int threads) {
    const AdamKernels& kernels = kernels_of(target);
    py::gil_scoped_release release;
    double before = -1, step_size = 0, root = 0;
    for (size_t k = 0; k < tensors_.size(); ++k) {
      const double t = steps_[k].raise();
      if (t != before) {  // nearly always the same for all parameters
        step_size = lr / (1 - std::pow(beta1, t));
        root = 1 / std::sqrt(1 - std::pow(beta2, t));
        before = t;
      }
      tensors_[k].step_size = step_size, tensors_[k].inv_root_correction2 = root;
    }
    kernels.step({tensors_.data(), static_cast<int64_t>(tensors_.size()), numel, real_, state_, beta1, beta2, eps, grad_factor,
                  decoupled ? 0 : weight_decay, decoupled ? 1 - lr * weight_decay : 1, ema_decay},
                 threads);
  }

  // Sum of the squares of all gradients, in an order that does not depend on `threads`.
  double square_sum(const std::string& target, int threads) const {
    const AdamKernels& kernels = kernels_of(target);
    py::gil_scoped_release release;
    std::vector<double> sums((numel + kAdamChunk - 1) / kAdamChunk);
    AdamStep s{};
    s.tensors = tensors_.data(), s.count = static_cast<int64_t>(tensors_.size()), s.numel = numel, s.dtype = real_;
    if (numel) kernels.square_sums(s, sums.data(), threads);
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
  }

 private:
  // A count of steps: torch keeps it in a tensor of one fp32 or fp64 element.
  struct StepCount {
    void* at;
    bool wide;
    double raise() const { return wide ? ++*static_cast<double*>(at) : ++*static_cast<float*>(at); }
  };

  const AdamKernels& kernels_of(const std::string& target) const {
    const AdamKernels* const kernels = adam_kernels(target.c_str());
    if (!kernels) throw py::value_error("target: no native adam named " + target);
    if (!why.empty() || !irregular.empty()) throw py::value_error("these tensors are not for native kernels: " + why);
    return *kernels;
  }

  void read(const List& params, const List& grads, const std::vector<List>& written, const List& steps) {
    const size_t count = params.size();
    if (grads.size() != count || steps.size() != count) throw Refused{"lists of different lengths"};
    for (const List& list : written)
      if (list.size() != 0 && list.size() != count) throw Refused{"lists of different lengths"};
    tensors_.reserve(count), steps_.reserve(count);
    for (size_t k = 0; k < count; ++k) read_parameter(k, on_cpu(params[k]), on_cpu(grads[k]), written, on_cpu(steps[k]));
  }

  void read_parameter(size_t k, Tensor param, Tensor grad, const std::vector<List>& written, Tensor step) {
    const TorchType* const type = type_of(param.dtype());
    if (!type) throw Refused{"a dtype that is not a floating-point number of 2, 4 or 8 bytes"};
    if (k == 0) dtype = type->name, real_ = type->real, code_ = type->code;
    if (type->code != code_) {
      mixed = true;
      throw Refused{"parameters of different dtypes"};
    }
    const int64_t parameter_numel = param.numel();
    const Layout layout = param.layout();
    bool regular = layout.dense(parameter_numel);
    const auto data = [&](Tensor t) {
      const Layout its = t.layout();
      if (!its.same_shape(layout)) throw Refused{"tensors of one parameter with different shapes"};
      regular = regular && its.same_order(layout);
      void* const pointer = t.data();
      if (!pointer && parameter_numel) throw Refused{"a tensor without memory"};
      return pointer;
    };
    if (grad.dtype() != type->code) throw Refused{"a gradient of another dtype than its parameter"};

    void* pointers[5] = {};
    for (size_t i = 0; i < written.size(); ++i) {
      if (written[i].size() == 0) continue;
      Tensor t = on_cpu(written[i][k]);
      const int32_t code = t.dtype();
      if (i >= 3 ? code != wide(*type).code : !agrees(code, *type, k == 0 && i == 0)) throw Refused{"states of different dtypes"};
      pointers[i] = data(t);
    }
    const int64_t elements = parameter_numel * type->parts;
    tensors_.push_back({data(param), data(grad), pointers[0], pointers[1], pointers[2], pointers[3],
                        pointers[4], numel, elements, 0, 0});
    numel += elements;
    if (!regular) irregular.push_back(k);

    const int32_t step_code = step.dtype();
    if (step.numel() != 1 || (step_code != 6 && step_code != 7)) throw Refused{"a step count that is not one fp32 or fp64 number"};
    steps_.push_back({step.data(), step_code == 7});
  }

  // What accompanies a parameter at full precision: fp32 for half precision, else its own type.
  static const TorchType& wide(const TorchType& type) {
    return type.real == DType::bf16 || type.real == DType::f16 ? *type_of(6) : type;
  }

  // All moments have one dtype: the parameters' or that of full precision.
  bool agrees(int32_t code, const TorchType& type, bool first) {
    if (first) {
      if (code != type.code && code != wide(type).code) return false;
      state_code_ = code, state_ = type_of(code)->real, state_dtype = type_of(code)->name;
    }
    return code == state_code_;
  }

  std::vector<AdamTensor> tensors_;
  std::vector<StepCount> steps_;
  DType real_ = DType::f32, state_ = DType::f32;
  int32_t code_ = 0, state_code_ = 0;
};

}  // namespace

void bind_adam(py::module_& m) {
  m.def("read_lists", &read_lists, "What lists of tensors are, and where, as bytes; None where only Python can tell.", py::arg("lists"));
  py::class_<AdamTable>(m, "AdamTable", "The tensors of an Adam step, read from lists of torch tensors.")
      .def(py::init<const py::handle&, const py::handle&, const py::handle&, const py::handle&, const py::handle&, const py::handle&,
                    const py::handle&, const py::handle&>(),
           py::arg("params"), py::arg("grads"), py::arg("exp_avgs"), py::arg("exp_avg_sqs"), py::arg("max_exp_avg_sqs"),
           py::arg("state_steps"), py::arg("masters") = py::tuple(), py::arg("emas") = py::tuple())
      .def_readonly("why", &AdamTable::why)
      .def_readonly("mixed", &AdamTable::mixed)
      .def_readonly("irregular", &AdamTable::irregular)
      .def_readonly("numel", &AdamTable::numel)
      .def_readonly("dtype", &AdamTable::dtype)
      .def_readonly("state_dtype", &AdamTable::state_dtype)
      .def("__len__", &AdamTable::size)
      .def("step", &AdamTable::step, py::arg("target"), py::arg("lr"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"),
           py::arg("weight_decay"), py::arg("decoupled"), py::arg("grad_factor"), py::arg("ema_decay"), py::arg("threads"))
      .def("square_sum", &AdamTable::square_sum, py::arg("target"), py::arg("threads"));
}

}  // namespace accelops
