// The Verilated array of multipliers behind a C function, for ctypes.
#include <cstdint>
#include <cstring>

#include "Vkernel.h"
#include "verilated.h"

// `words` words of inputs and weights, of x_bytes and w_bytes each, gaps of `gap` cycles between them; then the cycles until
// `sums` are valid are returned, -1 where they are not within 100.
extern "C" int mac_run(const uint8_t* x, uint64_t x_bytes, const uint8_t* w, uint64_t w_bytes, uint64_t words, uint64_t gap,
                       uint8_t* sums, uint64_t sums_bytes) {
  VerilatedContext context;
  Vkernel top(&context);
  const auto tick = [&] {
    top.clk = 0;
    top.eval();
    top.clk = 1;
    top.eval();
  };
  top.rst_n = 0;
  tick();
  top.rst_n = 1;
  for (uint64_t i = 0; i < words; ++i) {
    top.valid = 0;
    for (uint64_t waited = 0; waited < gap; ++waited) tick();
    std::memcpy(&top.x, x + i * x_bytes, x_bytes);
    std::memcpy(&top.w, w + i * w_bytes, w_bytes);
    top.valid = 1;
    top.first = i == 0;
    top.last = i + 1 == words;
    tick();
  }
  top.valid = 0;
  for (int waited = 0; waited < 100; ++waited) {
    if (top.sums_valid) {
      std::memcpy(sums, &top.sums, sums_bytes);
      return waited;
    }
    tick();
  }
  return -1;
}
