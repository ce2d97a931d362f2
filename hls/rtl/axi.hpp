// Memory as a simulated kernel sees it: behind each AXI4 port a memory of its own that answers after `latency` cycles, and
// that holds back at random. What a port does against the protocol (IHI 0022) is an error, told once, as is an access
// outside of the regions that were given.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace accelops {

struct Region {
  uint64_t address, bytes;
  uint8_t* host;
};

struct Surroundings {
  std::vector<Region> regions;
  uint64_t latency = 30;
  uint32_t held_back = 0;  // of 1000 cycles, those in which a ready or valid is withheld
  uint64_t random = 1;
  uint64_t cycle = 0;
  std::string error;

  bool holds_back() {
    random ^= random << 13;  // xorshift64 (Marsaglia 2003)
    random ^= random >> 7;
    random ^= random << 17;
    return random % 1000 < held_back;
  }
  void fail(const std::string& port, const std::string& what) {
    if (error.empty()) error = port + ": " + what + " in cycle " + std::to_string(cycle);
  }
  uint8_t* at(uint64_t address, uint64_t bytes) {
    for (const Region& r : regions)
      if (address >= r.address && bytes <= r.bytes && address - r.address <= r.bytes - bytes)
        return r.host + (address - r.address);
    return nullptr;
  }
};

// What a channel carries; a signal is where the simulated kernel keeps it.
struct Signal {
  void* at;
  size_t bytes;

  uint64_t value() const {
    uint64_t result = 0;
    std::memcpy(&result, at, bytes < 8 ? bytes : 8);
    return result;
  }
};

template <class T>
Signal signal_of(T& signal) {
  return {&signal, sizeof signal};
}

// A channel that the kernel drives: once valid it stays so, unchanged, until it is taken.
class Channel {
  std::string name_;
  uint8_t &valid_, &ready_;
  std::vector<Signal> payload_;
  std::vector<uint8_t> waiting_;  // the payload that was not taken; empty: none

 public:
  Channel(std::string name, uint8_t& valid, uint8_t& ready, std::vector<Signal> payload)
      : name_(std::move(name)), valid_(valid), ready_(ready), payload_(std::move(payload)) {}

  const std::string& name() const { return name_; }
  uint64_t operator[](size_t i) const { return payload_[i].value(); }
  const Signal& signal(size_t i) const { return payload_[i]; }
  void ready(bool is) { ready_ = is; }
  bool moves() const { return valid_ && ready_; }
  void check(Surroundings& around) {
    std::vector<uint8_t> now;
    for (const Signal& s : payload_) now.insert(now.end(), static_cast<uint8_t*>(s.at), static_cast<uint8_t*>(s.at) + s.bytes);
    if (!waiting_.empty() && !valid_) around.fail(name_, "VALID falls before READY");
    if (!waiting_.empty() && valid_ && now != waiting_) around.fail(name_, "changes while VALID waits for READY");
    waiting_ = valid_ && !ready_ ? now : std::vector<uint8_t>();
  }
};

struct Burst {
  uint64_t address, left, due;
};

enum { kAddress, kLength, kSize, kBurst };    // payload of AR and of AW
enum { kData, kStrobe, kLast };               // payload of W
constexpr uint64_t kMostBeats = 64, kPage = 4096, kAccepted = 32;  // kAccepted: bursts that a memory takes at once

// The burst that an address channel hands over, in order; its errors.
inline Burst burst_of(const Channel& channel, uint64_t beat_bytes, Surroundings& around) {
  const uint64_t address = channel[kAddress], beats = channel[kLength] + 1, bytes = beats * beat_bytes;
  if (beats > kMostBeats) around.fail(channel.name(), "a burst of " + std::to_string(beats) + " beats");
  if (address % kPage + bytes > kPage) around.fail(channel.name(), "a burst across a boundary of 4 KB");
  if (uint64_t{1} << channel[kSize] != beat_bytes || channel[kBurst] != 1)
    around.fail(channel.name(), "no incrementing burst of whole beats");
  if (address % beat_bytes) around.fail(channel.name(), "an address within a beat");
  if (!around.at(address, bytes)) around.fail(channel.name(), "outside of memory");
  return {address, beats, around.cycle + around.latency};
}

class ReadPort {
  Channel ar_;
  Signal data_;
  uint8_t &last_, &valid_, &ready_;
  std::deque<Burst> bursts_;
  bool offered_ = false;

 public:
  uint64_t beats = 0, most = 0;  // read, and the most bursts under way

  ReadPort(Channel ar, Signal data, uint8_t& last, uint8_t& valid, uint8_t& ready)
      : ar_(std::move(ar)), data_(data), last_(last), valid_(valid), ready_(ready) {}

  bool idle() const { return bursts_.empty(); }
  void drive(Surroundings& around) {
    ar_.ready(bursts_.size() < kAccepted && !around.holds_back());
    offered_ = offered_ || (!bursts_.empty() && around.cycle >= bursts_.front().due && !around.holds_back());
    valid_ = offered_;
    last_ = offered_ && bursts_.front().left == 1;
    if (offered_) std::memcpy(data_.at, around.at(bursts_.front().address, data_.bytes), data_.bytes);
  }
  void step(Surroundings& around) {
    ar_.check(around);
    if (valid_ && ready_) {
      offered_ = false;
      ++beats;
      bursts_.front().address += data_.bytes;
      if (--bursts_.front().left == 0) bursts_.pop_front();
    }
    if (ar_.moves()) bursts_.push_back(burst_of(ar_, data_.bytes, around));
    most = bursts_.size() > most ? bursts_.size() : most;
  }
};

class WritePort {
  Channel aw_, w_;
  uint8_t &valid_, &ready_;
  std::deque<Burst> bursts_;
  std::deque<uint64_t> responses_;  // when they are due
  bool offered_ = false;

 public:
  uint64_t beats = 0;

  WritePort(Channel aw, Channel w, uint8_t& valid, uint8_t& ready)
      : aw_(std::move(aw)), w_(std::move(w)), valid_(valid), ready_(ready) {}

  bool idle() const { return bursts_.empty() && responses_.empty(); }
  void drive(Surroundings& around) {
    aw_.ready(bursts_.size() < kAccepted && !around.holds_back());
    w_.ready(!bursts_.empty() && !around.holds_back());
    offered_ = offered_ || (!responses_.empty() && around.cycle >= responses_.front() && !around.holds_back());
    valid_ = offered_;
  }
  void step(Surroundings& around) {
    aw_.check(around);
    w_.check(around);
    if (valid_ && ready_) {
      offered_ = false;
      responses_.pop_front();
    }
    if (w_.moves()) write(around);
    if (aw_.moves()) bursts_.push_back(burst_of(aw_, w_.signal(kData).bytes, around));
  }

 private:
  void write(Surroundings& around) {
    Burst& burst = bursts_.front();
    const Signal& data = w_.signal(kData);
    uint8_t* const to = around.at(burst.address, data.bytes);
    for (size_t i = 0; to && i < data.bytes; ++i)
      if (w_[kStrobe] >> i & 1) to[i] = static_cast<uint8_t*>(data.at)[i];
    ++beats;
    burst.address += data.bytes;
    if ((--burst.left == 0) != (w_[kLast] != 0)) around.fail(w_.name(), "WLAST is not at the last beat of the burst");
    if (burst.left) return;
    bursts_.pop_front();
    responses_.push_back(around.cycle + around.latency);
  }
};

}  // namespace accelops
