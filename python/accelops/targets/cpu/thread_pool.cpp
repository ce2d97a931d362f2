#include "thread_pool.hpp"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
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
    start(threads - 1);
    pending_.store(threads - 1, std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      body_ = body;
      context_ = context;
      helpers_ = threads - 1;
      epoch_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    body(context, 0);
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
  void start(int count) {
    for (int i = workers(); i < count; ++i) {
      std::thread(&Pool::work, this, i, epoch_.load(std::memory_order_relaxed)).detach();
      started_.store(i + 1, std::memory_order_relaxed);
    }
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
};

// Never destroyed: detached workers may outlive static destructors. The child of a fork has no workers and maybe locked
// mutexes in its copy, so it gets a new pool.
std::atomic<Pool*> pool{nullptr};

Pool& current() {
  static const int once = [] {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
    return 0;
  }();
  (void)once;
  return *pool.load(std::memory_order_acquire);
}

}  // namespace

void ThreadPool::run(int threads, Body body, void* context) {
  Pool& p = current();
  if (threads > 1 && p.try_acquire()) {
    p.run(threads, body, context);
    p.release();
  } else {
    for (int t = 0; t < threads; ++t) body(context, t);
  }
}

int ThreadPool::workers() { return current().workers(); }

}  // namespace accelops
