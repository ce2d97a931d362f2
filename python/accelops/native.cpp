// The module accelops._native: what each op and the CPU target bind.
#include <pybind11/pybind11.h>

#include "isa.hpp"
#include "thread_pool.hpp"

namespace py = pybind11;

namespace accelops {
void bind_conv(py::module_&);
void bind_adam(py::module_&);
void bind_bucket(py::module_&);
void bind_reroute(py::module_&);
}  // namespace accelops

PYBIND11_MODULE(_native, m) {
  m.doc() = "Native kernels of accelops; the public interface is accelops itself.";
  m.def("isa", [] { return accelops::name(accelops::isa()); }, "The instruction set in use: baseline, avx2 or avx512.");
  m.def("pool_workers", &accelops::ThreadPool::workers, "How many worker threads have been started.");
  accelops::bind_conv(m);
  accelops::bind_adam(m);
  accelops::bind_bucket(m);
  accelops::bind_reroute(m);
}
