// The threads of the CPU kernels. Each call names how many it wants (torch.get_num_threads() at that moment).
//
// Inside a process that has torch (2.10 or newer), the work goes to torch's own OpenMP threads, through its stable C
// function torch_parallel_for. They spin for milliseconds after each of torch's ops, and a second set of threads would
// have to fight them for the cores: measured with 0.7 ms of work on two cores right after a torch op, our own threads ran
// 0.5x to 1.0x as fast in the median with a tail of 5x, torch's 1.0x with a tail of 1.1x.
//
// Elsewhere (no torch, an older one, or the child of a fork, where OpenMP's threads are gone and calling it would hang)
// it has workers of its own, started on first need. They poll for a few microseconds after a call and then sleep. A call
// made while they are busy (another Python thread, or a nested call) runs on its own thread alone: the cores are taken,
// and waiting for them could deadlock.
#pragma once

#include <cstdint>

namespace accelops {

class ThreadPool {
 public:
  using Body = void (*)(void* context, int thread);

  // Runs body(context, t) for every t in [0, threads), on the caller and up to threads - 1 workers; returns when all ended.
  static void run(int threads, Body body, void* context);

  // How many worker threads exist now (the caller's own is not counted).
  static int workers();
};

// Calls body(begin, end) over [0, count) in chunks of at most `chunk`, handed out in order to whichever thread is free.
// The chunk boundaries depend on `count` and `chunk` only, so a result stored per chunk does not depend on the schedule.
template <class F>
void parallel_for(int threads, int64_t count, int64_t chunk, const F& body) {
  const int64_t chunks = (count + chunk - 1) / chunk;
  if (threads > chunks) threads = static_cast<int>(chunks);
  if (threads <= 1) {
    for (int64_t begin = 0; begin < count; begin += chunk) body(begin, begin + chunk < count ? begin + chunk : count);
    return;
  }
  struct Context {
    const F& body;
    int64_t count, chunk, next;
  } context{body, count, chunk, 0};
  ThreadPool::run(
      threads,
      [](void* opaque, int) {
        auto& c = *static_cast<Context*>(opaque);
        for (;;) {
          const int64_t begin = __atomic_fetch_add(&c.next, c.chunk, __ATOMIC_RELAXED);
          if (begin >= c.count) return;
          c.body(begin, begin + c.chunk < c.count ? begin + c.chunk : c.count);
        }
      },
      &context);
}

}  // namespace accelops
