#include "engine/device/cpu/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <thread>
#include <vector>

#include "engine/base/check.h"

namespace tandem {
namespace {

// Looks at `word` this often before sleeping on it: some 50 us, longer than the serial code between
// two kernels of a step and much shorter than the pause between two requests.
constexpr int kSpins = 2000;

inline void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns once `word` differs from `old`. Acquire: what was written before the change is visible.
void AwaitChange(const std::atomic<int>& word, int old) {
  for (int i = 0; i < kSpins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  while (word.load(std::memory_order_acquire) == old) word.wait(old, std::memory_order_acquire);
}

std::vector<int> AllowedCores() {
  std::vector<int> cores;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &set)) cores.push_back(core);
    }
  }
  return cores;
}

// Best effort: a process that may not choose its cores runs unpinned.
void PinThisThread(const std::vector<int>& cores, int thread) {
  if (cores.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cores[static_cast<size_t>(thread) % cores.size()], &set);
  pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

}  // namespace

struct ThreadPool::State {
  // Each word that one side writes while the other polls has a cache line to itself.
  alignas(64) std::atomic<int> round{0};    // bumped to start a region (or to stop)
  alignas(64) std::atomic<int> running{0};  // workers still inside the region
  alignas(64) const std::function<void(int, int)>* body = nullptr;
  bool stop = false;
  int threads = 1;
  std::vector<std::exception_ptr> errors;  // one a thread
  std::vector<std::thread> workers;

  void Call(int thread) {
    try {
      (*body)(thread, threads);
    } catch (...) {
      errors[static_cast<size_t>(thread)] = std::current_exception();
    }
  }

  void Work(int thread) {
    int seen = 0;
    while (true) {
      AwaitChange(round, seen);
      ++seen;
      if (stop) return;
      Call(thread);
      // Release: the caller sees this thread's results once the count has dropped.
      if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) running.notify_one();
    }
  }

  void StartRound() {
    // Release: workers see body, stop and running as set before the bump.
    round.store(round.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    round.notify_all();
  }

  void Stop() noexcept {
    stop = true;
    StartRound();
    for (std::thread& worker : workers) worker.join();
  }
};

ThreadPool::ThreadPool(const ThreadPoolOptions& options) : state_(std::make_unique<State>()) {
  Check(options.threads >= 0, "thread pool: negative thread count");
  const std::vector<int> cores = AllowedCores();
  const int available = cores.empty()
                            ? static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))
                            : static_cast<int>(cores.size());
  State& state = *state_;
  state.threads = options.threads > 0 ? options.threads : available;
  state.errors.resize(static_cast<size_t>(state.threads));
  if (options.pin) PinThisThread(cores, 0);
  try {
    for (int thread = 1; thread < state.threads; ++thread) {
      state.workers.emplace_back([&state, cores, pin = options.pin, thread] {
        if (pin) PinThisThread(cores, thread);
        state.Work(thread);
      });
    }
  } catch (...) {
    state.Stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { state_->Stop(); }

int ThreadPool::threads() const { return state_->threads; }

void ThreadPool::Run(const std::function<void(int thread, int threads)>& body) {
  State& state = *state_;
  if (state.threads == 1) {
    body(0, 1);
    return;
  }
  Check(state.body == nullptr, "thread pool: Run is not reentrant");
  state.body = &body;
  state.running.store(state.threads - 1, std::memory_order_relaxed);
  state.StartRound();
  state.Call(0);
  for (int left = state.running.load(std::memory_order_acquire); left != 0;
       left = state.running.load(std::memory_order_acquire)) {
    AwaitChange(state.running, left);
  }
  state.body = nullptr;
  std::exception_ptr first;
  for (std::exception_ptr& error : state.errors) {
    if (error && !first) first = error;
    error = nullptr;
  }
  if (first) std::rethrow_exception(first);
}

WorkRange SplitWork(int64_t n, int thread, int threads, int64_t grain) {
  const int64_t pieces = (n + grain - 1) / grain;
  const int64_t begin = pieces * thread / threads * grain;
  const int64_t end = pieces * (thread + 1) / threads * grain;
  return WorkRange{std::min(begin, n), std::min(end, n)};
}

}  // namespace tandem
