// torch's device "fpga": memory, copies and views for tensors of boards, and the CPU for whatever a board does not do.
//
// Board memory cannot be dereferenced by the host, and torch's storages must be: so a tensor is a Block of host memory, of
// which a board holds copies, in torch's arrangement or in a kernel's. Python (memory.py) keeps the copies; here is who is
// current. A Block that is `away` was written by a board: the first one to look at it on the host has it fetched. A Block that
// has `changed` was written by the host: its copies count for nothing. Between launches nothing moves.
//
// No op's meaning stands here: kernels of boards are registered by Python, all other ops go to at::native::cpu_fallback.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_local_scalar_dense_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_cpu_dispatch.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_cpu_dispatch.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <map>
#include <unordered_set>

#include "memory.hpp"

namespace {

// ---- torch's ops on memory ------------------------------------------------------------------------------------------

void check(std::optional<c10::Layout> layout, std::optional<bool> pin_memory) {
  TORCH_CHECK_NOT_IMPLEMENTED(c10::layout_or_default(layout) == c10::Layout::Strided, "fpga: tensors are strided");
  TORCH_CHECK(!c10::pinned_memory_or_default(pin_memory), "fpga: only tensors of the CPU are pinned");
}

c10::DeviceGuard on(std::optional<c10::Device> device) {
  const auto given = c10::device_or_default(device);
  return c10::DeviceGuard(given.has_index() ? given : c10::Device(kFpga, current_device));
}

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

Tensor empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout,
             std::optional<c10::Device> device, std::optional<bool> pin_memory, std::optional<c10::MemoryFormat> format) {
  check(layout, pin_memory);
  const auto guard = on(device);
  return at::detail::empty_generic(size, &host_memory, kKeys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<c10::ScalarType> dtype,
                     std::optional<c10::Layout> layout, std::optional<c10::Device> device, std::optional<bool> pin_memory) {
  check(layout, pin_memory);
  const auto guard = on(device);
  return at::detail::empty_strided_generic(size, stride, &host_memory, kKeys, c10::dtype_or_default(dtype));
}

Tensor copy_from(const Tensor& self, const Tensor& dst, bool /*non_blocking*/) {
  const auto source = on_host(self), destination = on_host(dst);
  touch(self, false);
  if (dst.device().type() == kFpga) overwrite(dst);
  destination.copy_(source);
  return dst;
}

at::Scalar item(const Tensor& self) {
  touch(self, false);
  return at::native::_local_scalar_dense_cpu(on_host(self));
}

const Tensor& resize_(const Tensor& self, c10::IntArrayRef size, std::optional<c10::MemoryFormat> format) {
  touch(self, false);  // growing copies what is there
  return at::native::resize_(self, size, format);
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& dst) {
  if (dst.sizes() != self.sizes()) resize_(dst, self.sizes(), std::nullopt);
  return copy_from(self, dst, false);
}

Tensor as_strided(const Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<c10::SymInt> at) {
  return at::cpu::as_strided_symint(self, size, stride, at);
}
Tensor view(const Tensor& self, c10::SymIntArrayRef size) { return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size)); }
Tensor reshape_alias(const Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}
Tensor& set_to_storage(Tensor& self, at::Storage source) { return at::native::set_(self, source); }
Tensor& set_to_part(Tensor& self, at::Storage source, c10::SymInt at, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::cpu::set__symint(self, source, at, size, stride);
}

// ---- all other ops: the CPU -----------------------------------------------------------------------------------------

// Accelerators take these operands from the host; all others are one mistake away from a copy that nobody asked for.
bool takes_host_operands(const std::string& name) {
  static const std::unordered_set<std::string> names{
      "aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index",
      "aten::_unsafe_index_put", "aten::_foreach_addcdiv", "aten::_foreach_addcdiv_", "aten::_foreach_addcmul",
      "aten::_foreach_addcmul_"};
  return names.count(name) != 0;
}

void check_devices(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  std::optional<c10::Device> fpga, other;
  const auto see = [&](const Tensor& tensor) {
    if (!tensor.defined() || (tensor.is_cpu() && tensor.dim() == 0)) return;
    auto& kind = tensor.device().type() == kFpga && (!fpga || *fpga == tensor.device()) ? fpga : other;
    kind = tensor.device();
  };
  const auto arguments = torch::jit::last(stack, op.schema().arguments().size());
  for (const auto& argument : arguments) {
    if (argument.isTensor()) {
      see(argument.toTensor());
    } else if (argument.isTensorList()) {
      for (const Tensor& tensor : argument.toTensorList()) see(tensor);
    } else if (argument.isOptionalTensorList()) {
      for (const std::optional<Tensor>& tensor : argument.toOptionalTensorList()) see(tensor.value_or(Tensor()));
    }
  }
  TORCH_CHECK(!fpga || !other || takes_host_operands(op.schema().name()), op.schema().name(),
              ": Expected all tensors to be on the same device, but found at least two devices, ", *fpga, " and ", *other,
              "!");
}

std::mutex fallbacks_mutex;
std::map<std::string, int64_t> fallbacks;

void fall_to_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  check_devices(op, *stack);
  {
    std::lock_guard<std::mutex> held(fallbacks_mutex);
    ++fallbacks[op.schema().name()];
  }
  at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
}

// ---- what torch asks of a device ------------------------------------------------------------------------------------

struct Hooks final : at::PrivateUse1HooksInterface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count > 0; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return static_cast<DeviceIndex>(device_count); }
  DeviceIndex getCurrentDevice() const override { return current_device; }
  void setCurrentDevice(DeviceIndex index) const override { set_device(index); }
  DeviceIndex exchangeDevice(DeviceIndex index) const override { return exchange_device(index); }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override { return exchange_device(index); }
  // Random numbers are the CPU's: the same seed gives the same ones.
  const at::Generator& getDefaultGenerator(DeviceIndex) const override { return at::detail::getDefaultCPUGenerator(); }
  at::Generator getNewGenerator(DeviceIndex) const override { return at::detail::createCPUGenerator(); }
  // Pageable memory serves the driver as well: a loader that pins gets a plain copy.
  at::Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(c10::DeviceType::CPU); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t nbytes) const override {
    touch(block_of(storage), false);
    at::native::resize_bytes_cpu(storage.unsafeGetStorageImpl(), nbytes);
  }
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kFpga; }
  c10::Device exchangeDevice(c10::Device device) const override {
    return {kFpga, static_cast<DeviceIndex>(exchange_device(device.index()))};
  }
  c10::Device getDevice() const override { return {kFpga, current_device}; }
  void setDevice(c10::Device device) const override { current_device = device.index(); }  // autograd's threads: any
  void uncheckedSetDevice(c10::Device device) const noexcept override { current_device = device.index(); }
  c10::Stream getStream(c10::Device device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return stream; }
  DeviceIndex deviceCount() const noexcept override { return static_cast<DeviceIndex>(autograd_devices); }
  // Launches block: there is nothing to wait for.
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);
[[maybe_unused]] const bool registered = (at::RegisterPrivateUse1HooksInterface(new Hooks), true);

// ---- what Python asks -----------------------------------------------------------------------------------------------

int64_t block(const Tensor& tensor) {
  auto* found = block_of(tensor.storage());
  if (found == nullptr) return 0;
  if (!found->is_known.exchange(true)) {
    std::lock_guard<std::mutex> held(known_mutex);
    known.emplace(found->id, found);
  }
  return found->id;
}

Tensor host_side(int64_t id) {
  const auto* found = known_block(id);
  return at::from_blob(found->data, {static_cast<int64_t>(found->nbytes)}, at::TensorOptions().dtype(at::kByte));
}

std::vector<int64_t> take_freed() {
  std::lock_guard<std::mutex> held(known_mutex);
  return std::exchange(freed, {});
}

c10::Dict<std::string, int64_t> counted_fallbacks() {
  std::lock_guard<std::mutex> held(fallbacks_mutex);
  c10::Dict<std::string, int64_t> found;
  for (const auto& [name, count] : fallbacks) found.insert(name, count);
  return found;
}

}  // namespace

TORCH_LIBRARY(accelops_fpga, m) {
  m.def("fetch(int block) -> ()");  // Python's
  m.def("block(Tensor tensor) -> int", &block);  // 0: no memory
  m.def("host_side(int block) -> Tensor", &host_side);  // all of it, whoever is current; does not keep it alive
  m.def("touch(int block, bool writes) -> ()", [](int64_t id, bool writes) { touch(known_block(id), writes); });
  m.def("take_changed(int block) -> bool", [](int64_t id) { return known_block(id)->changed.exchange(false); });
  m.def("set_away(int block, bool away) -> ()", [](int64_t id, bool away) { known_block(id)->away = away; });
  m.def("take_freed() -> int[]", &take_freed);
  m.def("fallbacks() -> Dict(str, int)", &counted_fallbacks);
  m.def("set_device_count(int count) -> ()", [](int64_t count) { device_count = autograd_devices = count; });
  m.def("set_autograd_devices(int count) -> ()", [](int64_t count) { autograd_devices = count; });
  m.def("current_device() -> int", []() -> int64_t { return current_device; });
  m.def("exchange_device(int index) -> int", &exchange_device);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &item);
  m.impl("resize_", &resize_);
  m.impl("as_strided", &as_strided);
  m.impl("view", &view);
  m.impl("_reshape_alias", &reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("view_as_real", &at::native::view_as_real);
  m.impl("view_as_complex", &at::native::view_as_complex);
  m.impl("set_.source_Storage", &set_to_storage);
  m.impl("set_.source_Storage_storage_offset", &set_to_part);
  m.impl("set_.source_Tensor", &at::native::set_tensor_);
}

// Lazily conjugated and negated tensors are resolved by copying them, so that their copy must take them as they are.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fall_to_cpu>());
}
