// self_check [SEED] [--no-fork]: runs the cpu kernels of this machine's instruction set (ACCELOPS_ISA lowers it)
// against the references on random operands, and exits with 1, naming each case, if any fails. First every case, then
// some from several threads at once, then in the child of a fork, then in the parent again. It needs neither Python nor
// torch, so that it can be built for another processor and run in an emulator, and with the compiler's sanitizers
// (noxfile.py does all of that).
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "array.hpp"
#include "isa.hpp"
#include "thread_pool.hpp"

namespace accelops::self_check {
namespace {

void check_all(uint64_t seed, bool thorough, Report& report) {
  Random random(seed);
  check_conv(random, thorough, report);
  check_adam(random, thorough, report);
  check_bucket(random, thorough, report);
}

void check_from_threads(uint64_t seed, Report& report) {
  std::vector<std::thread> threads;
  for (uint64_t t = 1; t <= 3; ++t) threads.emplace_back([&report, seed, t] { check_all(seed + t, false, report); });
  for (std::thread& t : threads) t.join();
}

// The child has none of its parent's threads, and must start its own.
void check_in_a_child(uint64_t seed, Report& report) {
  const pid_t child = fork();
  if (child == 0) {
    Report own;
    own.check(ThreadPool::workers() == 0, "the child of a fork: it has its parent's workers");
    check_all(seed, false, own);
    own.check(ThreadPool::workers() > 0, "the child of a fork: it started no workers");
    std::fflush(stdout);  // _Exit does not
    std::_Exit(own.failures() ? 1 : 0);
  }
  int status = -1;
  report.check(child > 0 && waitpid(child, &status, 0) == child && status == 0, "the child of a fork failed");
}

int run(uint64_t seed, bool forks) {
  std::printf("%s, seed %llu%s\n", name(isa()), static_cast<unsigned long long>(seed), forks ? "" : ", without a fork");
  std::fflush(stdout);
  Report report;
  check_all(seed, true, report);
  check_from_threads(seed, report);
  if (forks) check_in_a_child(seed + 4, report);
  check_all(seed + 5, false, report);
  std::printf("%ld checks, %ld failed\n", report.checks(), report.failures());
  return report.failures() ? 1 : 0;
}

}  // namespace
}  // namespace accelops::self_check

int main(int argc, char** argv) {
  uint64_t seed = std::random_device{}();
  bool forks = true;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--no-fork") == 0)
      forks = false;
    else
      seed = std::strtoull(argv[i], nullptr, 10);
  }
  return accelops::self_check::run(seed, forks);
}
