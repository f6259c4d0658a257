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

std::vector<int> FindAllowedCores() {
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

// As the process first found them: a pool that pins leaves its caller on one core, where the next
// pool would see that one alone.
const std::vector<int>& AllowedCores() {
  static const std::vector<int> kCores = FindAllowedCores();
  return kCores;
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

// One thread's share of a region. `next` names the round too, so that a claim made late fails.
struct alignas(64) Share {
  std::atomic<uint64_t> next{0};  // round << 32 | first item not yet claimed
  std::atomic<uint32_t> end{0};
};

// How much of what is left of a share is taken at once.
uint32_t Claim(uint32_t left, uint32_t least, uint32_t most) {
  const uint32_t half = left / 2 / least * least;
  return std::min(left, std::clamp(half, least, most));
}

// What a round is, in the lowest bits of its number.
enum RoundKind : uint32_t { kRun = 0, kTasks = 1, kShares = 2, kRoundStep = 4 };

// A region is announced by a new value of `round`: its number and kind. In a Run the caller waits
// for every worker, so each sees every such round. A worker may sleep through rounds of tasks or
// shares and must then not touch what the caller has moved on from: it claims a task by taking one
// off `claims`, or items by moving a share's `next`, which also name the round, and only a claim
// that succeeds shows that the round still lives.
struct ThreadPool::State {
  using Body = FunctionRef<void(int, int)>;
  using Task = FunctionRef<void(uint32_t, int)>;
  using Part = FunctionRef<void(uint32_t, uint32_t, int)>;

  // Each word that one side writes while the other polls has a cache line to itself.
  alignas(64) std::atomic<int> round{0};
  alignas(64) std::atomic<uint64_t> claims{0};  // round << 32 | tasks not yet claimed
  alignas(64) std::atomic<int> running{0};      // workers, or tasks, that have not finished
  alignas(64) const Body* body = nullptr;
  std::atomic<const Task*> task{nullptr};
  std::atomic<uint32_t> task_count{0};
  std::atomic<const Part*> part{nullptr};
  std::atomic<uint32_t> least{1};
  std::atomic<uint32_t> most{1};
  std::vector<Share> shares;  // one a thread
  bool stop = false;
  bool active = false;  // the caller is inside a region
  int threads = 1;
  std::vector<std::exception_ptr> errors;  // one a thread
  std::vector<std::thread> workers;

  template <typename Call>
  void Guard(int thread, Call call) {
    try {
      call();
    } catch (...) {
      errors[static_cast<size_t>(thread)] = std::current_exception();
    }
  }

  // Release: the caller sees this thread's results once the count has dropped.
  void Finished(int count) {
    if (running.fetch_sub(count, std::memory_order_acq_rel) == count) running.notify_one();
  }

  void TakeTasks(uint32_t this_round, int thread) {
    int finished = 0;
    uint64_t claim = claims.load(std::memory_order_acquire);
    while (claim >> 32 == this_round && static_cast<uint32_t>(claim) > 0) {
      // Acquire: task and task_count are read as set before the round's claims were published.
      if (!claims.compare_exchange_weak(claim, claim - 1, std::memory_order_acq_rel,
                                        std::memory_order_acquire)) {
        continue;
      }
      const uint32_t index =
          task_count.load(std::memory_order_relaxed) - static_cast<uint32_t>(claim);
      Guard(thread, [&] { (*task.load(std::memory_order_relaxed))(index, thread); });
      ++finished;
      claim = claims.load(std::memory_order_acquire);
    }
    if (finished > 0) Finished(finished);
  }

  // Runs what is left of one share; returns how many items that was.
  uint32_t TakeShare(Share& share, uint32_t this_round, int thread) {
    uint32_t finished = 0;
    uint64_t next = share.next.load(std::memory_order_acquire);
    while (next >> 32 == this_round) {
      // Acquire, by the loads of `next`: the rest is read as set before the round's shares were
      // published.
      const auto begin = static_cast<uint32_t>(next);
      const uint32_t end = share.end.load(std::memory_order_relaxed);
      if (begin >= end) break;
      const uint32_t stop = begin + Claim(end - begin, least.load(std::memory_order_relaxed),
                                          most.load(std::memory_order_relaxed));
      if (!share.next.compare_exchange_weak(next, uint64_t{this_round} << 32 | stop,
                                            std::memory_order_acq_rel, std::memory_order_acquire)) {
        continue;
      }
      Guard(thread, [&] { (*part.load(std::memory_order_relaxed))(begin, stop, thread); });
      finished += stop - begin;
      next = share.next.load(std::memory_order_acquire);
    }
    return finished;
  }

  // A thread's own share, then the others'.
  void TakeShares(uint32_t this_round, int thread) {
    const auto own = static_cast<size_t>(thread);
    uint32_t finished = 0;
    for (size_t i = 0; i < shares.size(); ++i) {
      finished += TakeShare(shares[(own + i) % shares.size()], this_round, thread);
    }
    if (finished > 0) Finished(static_cast<int>(finished));
  }

  void Work(int thread) {
    int seen = 0;
    while (true) {
      AwaitChange(round, seen);
      seen = round.load(std::memory_order_acquire);
      const auto now = static_cast<uint32_t>(seen);
      if (now % kRoundStep == kTasks) {
        TakeTasks(now, thread);
        continue;
      }
      if (now % kRoundStep == kShares) {
        TakeShares(now, thread);
        continue;
      }
      if (stop) return;
      Guard(thread, [&] { (*body)(thread, threads); });
      Finished(1);
    }
  }

  // The value of the next round; unsigned arithmetic, so that it may wrap around.
  uint32_t NextRound(RoundKind kind) const {
    const auto now = static_cast<uint32_t>(round.load(std::memory_order_relaxed));
    return now / kRoundStep * kRoundStep + kRoundStep + kind;
  }

  void StartRound(uint32_t next) {
    // Release: workers see what belongs to the round as set before.
    round.store(static_cast<int>(next), std::memory_order_release);
    round.notify_all();
  }

  void AwaitFinish() {
    for (int left = running.load(std::memory_order_acquire); left != 0;
         left = running.load(std::memory_order_acquire)) {
      AwaitChange(running, left);
    }
    active = false;
    std::exception_ptr first;
    for (std::exception_ptr& error : errors) {
      if (error && !first) first = error;
      error = nullptr;
    }
    if (first) std::rethrow_exception(first);
  }

  void Stop() noexcept {
    stop = true;
    StartRound(NextRound(kRun));
    for (std::thread& worker : workers) worker.join();
  }
};

ThreadPool::ThreadPool(const ThreadPoolOptions& options) : state_(std::make_unique<State>()) {
  Check(options.threads >= 0, "thread pool: negative thread count");
  const std::vector<int>& cores = AllowedCores();
  const int available = cores.empty()
                            ? static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))
                            : static_cast<int>(cores.size());
  State& state = *state_;
  state.threads = options.threads > 0 ? options.threads : available;
  state.errors.resize(static_cast<size_t>(state.threads));
  state.shares = std::vector<Share>(static_cast<size_t>(state.threads));
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

void ThreadPool::Run(FunctionRef<void(int thread, int threads)> body) {
  State& state = *state_;
  if (state.threads == 1) {
    body(0, 1);
    return;
  }
  Check(!state.active, "thread pool: Run is not reentrant");
  state.active = true;
  state.body = &body;
  state.running.store(state.threads - 1, std::memory_order_relaxed);
  state.StartRound(state.NextRound(kRun));
  state.Guard(0, [&] { body(0, state.threads); });
  state.AwaitFinish();
}

void ThreadPool::RunTasks(uint32_t n, FunctionRef<void(uint32_t task, int thread)> task) {
  State& state = *state_;
  if (state.threads == 1 || n <= 1) {
    for (uint32_t i = 0; i < n; ++i) task(i, 0);
    return;
  }
  Check(!state.active, "thread pool: RunTasks is not reentrant");
  state.active = true;
  const uint32_t round = state.NextRound(kTasks);
  state.task.store(&task, std::memory_order_relaxed);
  state.task_count.store(n, std::memory_order_relaxed);
  state.running.store(static_cast<int>(n), std::memory_order_relaxed);
  // Release: whoever claims sees the three stores above.
  state.claims.store(uint64_t{round} << 32 | n, std::memory_order_release);
  state.StartRound(round);
  state.TakeTasks(round, 0);
  state.AwaitFinish();
}

void ThreadPool::RunShares(uint32_t n, ShareGrain grain,
                           FunctionRef<void(uint32_t begin, uint32_t end, int thread)> body) {
  State& state = *state_;
  if (n == 0) return;
  Check(0 < grain.least && grain.least <= grain.most, "thread pool: a grain of nothing");
  if (state.threads == 1 || n <= grain.least) {
    body(0, n, 0);
    return;
  }
  Check(!state.active, "thread pool: RunShares is not reentrant");
  state.active = true;
  const uint32_t round = state.NextRound(kShares);
  state.part.store(&body, std::memory_order_relaxed);
  state.least.store(grain.least, std::memory_order_relaxed);
  state.most.store(grain.most, std::memory_order_relaxed);
  state.running.store(static_cast<int>(n), std::memory_order_relaxed);
  for (size_t i = 0; i < state.shares.size(); ++i) {
    Share& share = state.shares[i];
    const WorkRange range = SplitWork(n, static_cast<int>(i), state.threads, grain.least);
    share.end.store(static_cast<uint32_t>(range.end), std::memory_order_relaxed);
    // Release: whoever claims sees what was stored above.
    share.next.store(uint64_t{round} << 32 | static_cast<uint32_t>(range.begin),
                     std::memory_order_release);
  }
  state.StartRound(round);
  state.TakeShares(round, 0);
  state.AwaitFinish();
}

WorkRange SplitWork(int64_t n, int thread, int threads, int64_t grain) {
  const int64_t pieces = (n + grain - 1) / grain;
  const int64_t begin = pieces * thread / threads * grain;
  const int64_t end = pieces * (thread + 1) / threads * grain;
  return WorkRange{std::min(begin, n), std::min(end, n)};
}

}  // namespace tandem
