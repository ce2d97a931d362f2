#include "thread_pool.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace accelops {
namespace {

// A worker that has just finished polls this often for the next call before it sleeps: about 20 microseconds, less than
// waking it costs (30 to 50 on a virtual machine), too little to be seen as load.
constexpr int kPolls = 400;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Pool {
 public:
  bool try_acquire() { return !busy_.exchange(true, std::memory_order_acquire); }
  void release() { busy_.store(false, std::memory_order_release); }
  int workers() const { return started_.load(std::memory_order_relaxed); }

  // The caller holds the pool.
  void run(int threads, ThreadPool::Body body, void* context) {
    const int helpers = start(threads - 1);
    leave_this_core();
    pending_.store(helpers, std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      body_ = body;
      context_ = context;
      helpers_ = helpers;
      epoch_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    body(context, 0);
    for (int t = helpers + 1; t < threads; ++t) body(context, t);
    for (int i = 0; pending_.load(std::memory_order_acquire) != 0; ++i) {
      if (i < kPolls) {
        pause();
      } else {
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [&] { return pending_.load(std::memory_order_acquire) == 0; });
      }
    }
  }

 private:
  // Returns how many of `count` workers there are: fewer where the system grants no more threads.
  int start(int count) {
    try {
      for (int i = workers(); i < count; ++i) {
        std::thread worker(&Pool::work, this, i, epoch_.load(std::memory_order_relaxed));
        handles_.push_back(worker.native_handle());
        worker.detach();
        started_.store(i + 1, std::memory_order_relaxed);
        core_ = -1;
      }
    } catch (const std::system_error&) {
    }
    return std::min(count, workers());
  }

  // Linux tends to wake a thread on the core of the thread that wakes it, where it waits for milliseconds while the caller
  // works: measured, all of the speed-up of two threads was lost. So the workers are kept off the caller's core.
  void leave_this_core() {
#if defined(__linux__)
    const int core = sched_getcpu();
    if (core == core_ || core < 0) return;
    core_ = core;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
    CPU_CLR(core, &allowed);
    for (const pthread_t handle : handles_) pthread_setaffinity_np(handle, sizeof allowed, &allowed);
#endif
  }

  void work(int index, uint64_t seen) {
    for (;;) {
      for (int i = 0; i < kPolls && epoch_.load(std::memory_order_acquire) == seen; ++i) pause();
      int helpers;
      ThreadPool::Body body;
      void* context;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return epoch_.load(std::memory_order_acquire) != seen; });
        seen = epoch_.load(std::memory_order_relaxed);
        helpers = helpers_;
        body = body_;
        context = context_;
      }
      if (index >= helpers) continue;  // this call asked for fewer threads
      body(context, index + 1);
      if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        std::lock_guard<std::mutex> lock(mutex_);
        done_.notify_one();
      }
    }
  }

  std::atomic<bool> busy_{false};
  std::atomic<int> started_{0}, pending_{0};
  std::atomic<uint64_t> epoch_{0};
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  ThreadPool::Body body_ = nullptr;
  void* context_ = nullptr;
  int helpers_ = 0;
  std::vector<pthread_t> handles_;
  int core_ = -1;
};

// torch/csrc/stable/c/shim.h
using TorchParallelFor = int32_t (*)(int64_t begin, int64_t end, int64_t grain, void (*)(int64_t, int64_t, void*), void*);

TorchParallelFor torch_parallel_for() {
  static const auto found = [] {
    void* torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
    return torch ? reinterpret_cast<TorchParallelFor>(dlsym(torch, "torch_parallel_for")) : nullptr;
  }();
  return found;
}

// Never destroyed: detached workers may outlive static destructors. The child of a fork has no workers and maybe locked
// mutexes in its copy, so it gets a new pool.
std::atomic<Pool*> pool{new Pool};
std::atomic<bool> forked{false};
const int fork_is_noticed = pthread_atfork(nullptr, nullptr, [] {
  pool = new Pool;
  forked = true;
});

bool run_on_torchs_threads(int threads, ThreadPool::Body body, void* context) {
  if (forked.load(std::memory_order_relaxed) || !torch_parallel_for()) return false;
  struct Work {
    ThreadPool::Body body;
    void* context;
  } work{body, context};
  return torch_parallel_for()(
             0, threads, 1,
             [](int64_t begin, int64_t end, void* opaque) {
               const auto& w = *static_cast<Work*>(opaque);
               for (int64_t t = begin; t < end; ++t) w.body(w.context, static_cast<int>(t));
             },
             &work) == 0;
}

}  // namespace

void ThreadPool::run(int threads, Body body, void* context) {
  if (threads > 1 && run_on_torchs_threads(threads, body, context)) return;
  Pool& p = *pool.load(std::memory_order_acquire);
  if (threads > 1 && p.try_acquire()) {
    p.run(threads, body, context);
    p.release();
  } else {
    for (int t = 0; t < threads; ++t) body(context, t);
  }
}

int ThreadPool::workers() { return pool.load(std::memory_order_acquire)->workers(); }

}  // namespace accelops
