// A team of threads that runs one parallel region at a time: the caller is thread 0, the others
// spin a while between regions and then park. Regions are short (a kernel phase), so entering one
// costs well under a microsecond while the team is awake.
//
// One thread calls Run, RunTasks or RunShares at a time; none is reentrant.
//
//   ThreadPool pool({.threads = 2, .pin = true});
//   pool.Run([&](int thread, int threads) { ... });
//   pool.RunTasks(chunks.size(), [&](uint32_t chunk, int thread) { ... });
//   pool.RunShares(panels, {.least = 2, .most = 4},
//                  [&](uint32_t begin, uint32_t end, int thread) { ... });
#pragma once

#include <cstdint>
#include <memory>

#include "engine/base/function_ref.h"

namespace tandem {

struct ThreadPoolOptions {
  int threads = 0;   // 0: one per core this process may use
  bool pin = false;  // bind thread i to the i-th allowed core
};

// How many items of a share are taken at a time: `most`, and fewer towards its end, so that threads
// end together, but multiples of `least`. Shares are cut at multiples of `least` too.
struct ShareGrain {
  uint32_t least = 1;
  uint32_t most = 1;
};

class ThreadPool {
 public:
  explicit ThreadPool(const ThreadPoolOptions& options);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;
  // Calls body(thread, threads) once on every thread and returns when all have finished. An
  // exception from any of them is rethrown here.
  void Run(FunctionRef<void(int thread, int threads)> body);
  // Calls task(i, thread) once for each i in [0, n), in rising order of start, each on whichever
  // thread is free, and returns when all have finished. Unlike Run it does not wait for a thread
  // that has begun nothing, so a core that another program holds delays little. Exceptions as in
  // Run.
  void RunTasks(uint32_t n, FunctionRef<void(uint32_t task, int thread)> task);

  // Calls body(begin, end, thread) over parts of [0, n). Each thread walks a share of its own
  // (SplitWork by the least grain) front to back, so that a stream through memory is not broken,
  // then helps with what others have not begun. Exceptions as in Run.
  void RunShares(uint32_t n, ShareGrain grain,
                 FunctionRef<void(uint32_t begin, uint32_t end, int thread)> body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The part [begin, end) of n items that thread t of `threads` takes, cut at multiples of `grain`.
struct WorkRange {
  int64_t begin = 0;
  int64_t end = 0;
};
WorkRange SplitWork(int64_t n, int thread, int threads, int64_t grain = 1);

}  // namespace tandem
