// The Verilated reduction kernel behind C functions, for ctypes: registers are read and written through its AXI4-Lite port,
// clock by clock, and its masters find memory (axi.hpp) in the regions that are given.
#include <memory>

#include "Vkernel.h"
#include "axi.hpp"
#include "verilated.h"

namespace accelops {
namespace {

#define SIGNAL(port, name) signal_of(top.m_axi_##port##_##name)
#define ADDRESS(port, way) \
  Channel(#port " " #way, top.m_axi_##port##_##way##VALID, top.m_axi_##port##_##way##READY, \
          {SIGNAL(port, way##ADDR), SIGNAL(port, way##LEN), SIGNAL(port, way##SIZE), SIGNAL(port, way##BURST), \
           SIGNAL(port, way##CACHE), SIGNAL(port, way##PROT)})
#define READ_PORT(port) \
  reads.emplace_back(ADDRESS(port, AR), SIGNAL(port, RDATA), top.m_axi_##port##_RLAST, top.m_axi_##port##_RVALID, \
                     top.m_axi_##port##_RREADY);
#define WRITE_PORT(port) \
  writes.emplace_back(ADDRESS(port, AW), \
                      Channel(#port " W", top.m_axi_##port##_WVALID, top.m_axi_##port##_WREADY, \
                              {SIGNAL(port, WDATA), SIGNAL(port, WSTRB), SIGNAL(port, WLAST)}), \
                      top.m_axi_##port##_BVALID, top.m_axi_##port##_BREADY);

struct Slot {
  VerilatedContext context;
  Vkernel top{&context};
  Surroundings around;
  std::vector<ReadPort> reads;
  std::vector<WritePort> writes;

  Slot() {
    READ_PORT(gmem0) READ_PORT(gmem1) READ_PORT(gmem2) READ_PORT(gmem3) READ_PORT(gmem4)
    WRITE_PORT(gmem0) WRITE_PORT(gmem1) WRITE_PORT(gmem2) WRITE_PORT(gmem3)
    top.ap_rst_n = 0;
    for (int i = 0; i < 4; ++i) tick();
    top.ap_rst_n = 1;
  }

  // The kernel's outputs in this cycle, given its inputs.
  void settle() {
    for (auto& port : reads) port.drive(around);
    for (auto& port : writes) port.drive(around);
    top.ap_clk = 0;
    top.eval();
  }
  void edge() {
    if (top.ap_rst_n) {
      for (auto& port : reads) port.step(around);
      for (auto& port : writes) port.step(around);
    }
    top.ap_clk = 1;
    top.eval();
    ++around.cycle;
  }
  void tick() {
    settle();
    edge();
  }
  // Verilator's name for a port whose name is a common word in C++.
  bool interrupt() const { return top.__SYM__interrupt; }
  bool idle() const {
    for (const auto& port : reads)
      if (!port.idle()) return false;
    for (const auto& port : writes)
      if (!port.idle()) return false;
    return true;
  }

  // A transfer on a channel of AXI4-Lite; `moves` tells in the settled cycle.
  template <class Moves>
  void until(Moves moves) {
    for (int waited = 0; waited < 1000; ++waited) {
      settle();
      const bool done = moves();
      edge();
      if (done) return;
    }
    around.fail("s_axi_control", "no answer in 1000 cycles");
  }
};

}  // namespace
}  // namespace accelops

using accelops::Slot;

extern "C" {

Slot* rtl_new(uint64_t latency, uint32_t held_back, uint64_t seed) {
  auto slot = std::make_unique<Slot>();
  slot->around.latency = latency;
  slot->around.held_back = held_back;
  slot->around.random = seed | 1;
  return slot.release();
}

void rtl_delete(Slot* slot) { delete slot; }

void rtl_clear_regions(Slot* slot) { slot->around.regions.clear(); }

void rtl_add_region(Slot* slot, uint64_t address, uint64_t bytes, uint8_t* host) {
  slot->around.regions.push_back({address, bytes, host});
}

void rtl_write(Slot* slot, uint32_t offset, uint32_t value) {
  auto& top = slot->top;
  top.s_axi_control_AWADDR = uint16_t(offset);
  top.s_axi_control_WDATA = value;
  top.s_axi_control_WSTRB = 0xf;
  top.s_axi_control_AWVALID = top.s_axi_control_WVALID = 1;
  slot->until([&] { return top.s_axi_control_AWREADY && top.s_axi_control_WREADY; });
  top.s_axi_control_AWVALID = top.s_axi_control_WVALID = 0;
  top.s_axi_control_BREADY = 1;
  slot->until([&] { return top.s_axi_control_BVALID; });
  top.s_axi_control_BREADY = 0;
}

uint32_t rtl_read(Slot* slot, uint32_t offset) {
  auto& top = slot->top;
  uint32_t value = 0;
  top.s_axi_control_ARADDR = uint16_t(offset);
  top.s_axi_control_ARVALID = 1;
  slot->until([&] { return top.s_axi_control_ARREADY; });
  top.s_axi_control_ARVALID = 0;
  top.s_axi_control_RREADY = 1;
  slot->until([&] {
    value = top.s_axi_control_RDATA;
    return top.s_axi_control_RVALID;
  });
  top.s_axi_control_RREADY = 0;
  return value;
}

// Clocks until the interrupt is raised, an error is found, or `most` cycles have passed; the number of cycles.
uint64_t rtl_run(Slot* slot, uint64_t most) {
  const uint64_t begin = slot->around.cycle;
  while (!slot->interrupt() && slot->around.error.empty() && slot->around.cycle - begin < most) slot->tick();
  if (slot->interrupt() && !slot->idle()) slot->around.fail("interrupt", "done, with bursts still under way");
  return slot->around.cycle - begin;
}

int rtl_interrupt(const Slot* slot) { return slot->interrupt(); }

// The first error since the slot was made, "" where there is none.
const char* rtl_error(const Slot* slot) { return slot->around.error.c_str(); }

// Of port gmem<port> since the slot was made: beats read, beats written, the most reads under way at once.
void rtl_counts(const Slot* slot, uint32_t port, uint64_t counts[3]) {
  counts[0] = slot->reads[port].beats;
  counts[1] = port < slot->writes.size() ? slot->writes[port].beats : 0;
  counts[2] = slot->reads[port].most;
}

}  // extern "C"
