// Devices and their memory. A tensor is a Block of host memory, of which a board holds copies; see device.cpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <atomic>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace {

using at::Tensor;
using c10::DeviceIndex;

constexpr auto kFpga = c10::DeviceType::PrivateUse1;

// ---- devices --------------------------------------------------------------------------------------------------------

std::atomic<int64_t> device_count{0};
std::atomic<int64_t> autograd_devices{0};  // as many as torch is told there are: it makes threads for them, once
thread_local DeviceIndex current_device = 0;

void set_device(int64_t index) {
  TORCH_CHECK(0 <= index && index < device_count, "fpga: no device fpga:", index, "; there are ", device_count.load(),
              " (accelops.fpga_device)");
  current_device = static_cast<DeviceIndex>(index);
}

int64_t exchange_device(int64_t index) {
  const auto before = current_device;
  if (index >= 0) set_device(index);
  return before;
}

// ---- memory ---------------------------------------------------------------------------------------------------------

struct Block {
  int64_t id;
  void* data;
  size_t nbytes;
  std::atomic<bool> away{false}, changed{false}, is_known{false};
};

std::mutex known_mutex;
std::unordered_map<int64_t, Block*> known;  // those that Python may have copies of
std::vector<int64_t> freed;                 // of these

// Runs wherever the last reference goes, without the interpreter: Python asks for what was freed before it allocates.
void release(void* context) {
  auto* block = static_cast<Block*>(context);
  if (block->is_known) {
    std::lock_guard<std::mutex> held(known_mutex);
    known.erase(block->id);
    freed.push_back(block->id);
  }
  c10::free_cpu(block->data);
  delete block;
}

struct HostMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t nbytes) override {
    static std::atomic<int64_t> made{0};
    const c10::Device device(kFpga, current_device);
    if (nbytes == 0) return {nullptr, device};
    auto* block = new Block{++made, c10::alloc_cpu(nbytes), nbytes};
    return {block->data, block, &release, device};
  }
  void copy_data(void*, const void*, size_t) const override {
    TORCH_CHECK(false, "fpga: memory is copied by its tensors, not by its address");
  }
};

HostMemory host_memory;
REGISTER_ALLOCATOR(kFpga, &host_memory);

Block* block_of(const c10::Storage& storage) {
  const auto& pointer = storage.data_ptr();
  return pointer.get_deleter() == &release ? static_cast<Block*>(pointer.get_context()) : nullptr;
}

// Before the host reads or writes: what a board has written is fetched, by Python, which raises where that fails.
void touch(Block* block, bool writes) {
  if (block == nullptr) return;
  if (block->away) {
    static auto fetch = c10::Dispatcher::singleton().findSchemaOrThrow("accelops_fpga::fetch", "").typed<void(int64_t)>();
    fetch.call(block->id);
  }
  if (writes) block->changed = true;
}

void touch(const Tensor& tensor, bool writes) {
  if (tensor.device().type() == kFpga) touch(block_of(tensor.storage()), writes);
}

Block* known_block(int64_t id) {
  std::lock_guard<std::mutex> held(known_mutex);
  const auto found = known.find(id);
  TORCH_CHECK(found != known.end(), "fpga: the memory of block ", id, " was freed");
  return found->second;
}

// All of its memory is about to be written: nothing needs to be fetched first.
void overwrite(const Tensor& tensor) {
  auto* block = block_of(tensor.storage());
  if (block != nullptr && tensor.is_non_overlapping_and_dense() && tensor.nbytes() == tensor.storage().nbytes()) {
    block->away = false;
  }
  touch(block, true);
}

// The same memory as a tensor of the CPU, whoever is current; it does not keep the memory alive.
Tensor on_host(const Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  TORCH_CHECK(tensor.device().type() == kFpga, "fpga: no way from or to ", tensor.device(), "; go by the CPU");
  auto options = at::TensorOptions().dtype(tensor.dtype()).device(at::kCPU);
  auto* data = tensor.numel() == 0 ? nullptr : tensor.mutable_data_ptr();
  auto made = at::from_blob(data, tensor.sizes(), tensor.strides(), options);
  made._set_conj(tensor.is_conj());
  made._set_neg(tensor.is_neg());
  return made;
}

}  // namespace
