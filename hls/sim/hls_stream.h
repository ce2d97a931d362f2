// hls::stream for C-simulation without Vitis: an unbounded queue. Stages run one after the other, so a read from an empty
// stream is a stage that asks for more than was sent, which on a board is a hang: it ends the simulation.
#pragma once

#if defined(__SYNTHESIS__) || defined(__VITIS_HLS__)
#error "hls/sim is on the include path under Vitis HLS, which brings its own hls_stream.h: remove it"
#endif

#include <cstdio>
#include <cstdlib>
#include <deque>

namespace hls {

template <class T>
class stream {
  std::deque<T> queue_;
  const char* name_;

 public:
  explicit stream(const char* name = "unnamed") : name_(name) {}
  stream(const stream&) = delete;
  stream& operator=(const stream&) = delete;
  ~stream() {
    if (queue_.empty()) return;
    std::fprintf(stderr, "stream %s: %zu values were written and never read\n", name_, queue_.size());
    std::abort();
  }

  void write(const T& value) { queue_.push_back(value); }
  T read() {
    if (queue_.empty()) {
      std::fprintf(stderr, "stream %s: read when empty\n", name_);
      std::abort();
    }
    T value = queue_.front();
    queue_.pop_front();
    return value;
  }
  bool empty() const { return queue_.empty(); }
};

}  // namespace hls
