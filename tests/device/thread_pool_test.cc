// The thread team: every thread once a region, results visible, exceptions rethrown, parking.
#include "engine/device/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace tandem {
namespace {

TEST(ThreadPoolTest, CallsEveryThreadOncePerRegion) {
  for (int threads : {1, 2, 3, 5}) {
    ThreadPool pool({.threads = threads});
    ASSERT_EQ(pool.threads(), threads);
    std::vector<int> calls(static_cast<size_t>(threads), 0);
    for (int round = 1; round <= 200; ++round) {
      pool.Run([&](int thread, int count) {
        ASSERT_EQ(count, threads);
        ++calls[static_cast<size_t>(thread)];
      });
      // Plain ints: Run must have made the workers' writes visible.
      for (int c : calls) ASSERT_EQ(c, round);
    }
  }
}

TEST(ThreadPoolTest, TheCallerIsThreadZero) {
  ThreadPool pool({.threads = 2});
  std::thread::id zero;
  pool.Run([&](int thread, int) {
    if (thread == 0) zero = std::this_thread::get_id();
  });
  EXPECT_EQ(zero, std::this_thread::get_id());
}

TEST(ThreadPoolTest, WakesThreadsThatHaveParked) {
  ThreadPool pool({.threads = 3});
  std::atomic<int> calls{0};
  for (int round = 0; round < 3; ++round) {
    // Longer than the workers spin.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    pool.Run([&](int, int) { ++calls; });
  }
  EXPECT_EQ(calls.load(), 9);
}

TEST(ThreadPoolTest, WaitsForASlowWorker) {
  ThreadPool pool({.threads = 2});
  int done = 0;
  pool.Run([&](int thread, int) {
    if (thread == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      done = 1;
    }
  });
  EXPECT_EQ(done, 1);
}

TEST(ThreadPoolTest, RethrowsFromAnyThreadAndStaysUsable) {
  ThreadPool pool({.threads = 2});
  for (int thrower : {0, 1}) {
    try {
      pool.Run([&](int thread, int) {
        if (thread == thrower) throw std::runtime_error("from " + std::to_string(thread));
      });
      FAIL() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(error.what(), "from " + std::to_string(thrower));
    }
  }
  std::atomic<int> calls{0};
  pool.Run([&](int, int) { ++calls; });
  EXPECT_EQ(calls.load(), 2);
}

TEST(ThreadPoolTest, TakesEveryAllowedCoreByDefault) {
  ThreadPool pool({.threads = 0});
  EXPECT_GE(pool.threads(), 1);
  std::atomic<int> calls{0};
  pool.Run([&](int, int) { ++calls; });
  EXPECT_EQ(calls.load(), pool.threads());
}

TEST(ThreadPoolTest, RunsEachTaskOnceWithAThreadOfTheTeam) {
  for (int threads : {1, 2, 3, 5}) {
    ThreadPool pool({.threads = threads});
    for (uint32_t n : {0u, 1u, 2u, 7u, 100u}) {
      std::vector<int> calls(n, 0);
      for (int round = 1; round <= 50; ++round) {
        pool.RunTasks(n, [&](uint32_t task, int thread) {
          ASSERT_GE(thread, 0);
          ASSERT_LT(thread, threads);
          ++calls[task];
        });
        // Plain ints: RunTasks must have made the workers' writes visible.
        for (int c : calls) ASSERT_EQ(c, round);
      }
    }
  }
}

TEST(ThreadPoolTest, TasksAreSharedAmongThreads) {
  ThreadPool pool({.threads = 2});
  std::atomic<int> inside{0};
  // Each task waits for the other: only two threads can finish both.
  pool.RunTasks(2, [&](uint32_t, int) {
    ++inside;
    while (inside.load() < 2) std::this_thread::yield();
  });
  EXPECT_EQ(inside.load(), 2);
}

TEST(ThreadPoolTest, SharesCoverEveryItemOnce) {
  for (int threads : {1, 2, 3}) {
    ThreadPool pool({.threads = threads});
    for (uint32_t n : {0u, 1u, 4u, 5u, 36u, 1000u}) {
      std::vector<int> calls(n, 0);
      pool.RunShares(n, {.least = 2, .most = 4}, [&](uint32_t begin, uint32_t end, int) {
        for (uint32_t i = begin; i < end; ++i) ++calls[i];
      });
      EXPECT_EQ(calls, std::vector<int>(n, 1)) << n << " items, " << threads << " threads";
    }
  }
}

TEST(ThreadPoolTest, MixesRegionsOfBothKinds) {
  ThreadPool pool({.threads = 3});
  std::vector<int> tasks(4, 0), threads(3, 0);
  for (int round = 1; round <= 2000; ++round) {
    pool.RunTasks(4, [&](uint32_t task, int) { ++tasks[task]; });
    pool.Run([&](int thread, int) { ++threads[static_cast<size_t>(thread)]; });
    pool.RunTasks(2, [&](uint32_t task, int) { ++tasks[task]; });
  }
  EXPECT_EQ(tasks, (std::vector<int>{4000, 4000, 2000, 2000}));
  EXPECT_EQ(threads, (std::vector<int>{2000, 2000, 2000}));
}

TEST(ThreadPoolTest, RethrowsFromATaskAndStaysUsable) {
  ThreadPool pool({.threads = 2});
  for (int round = 0; round < 20; ++round) {
    EXPECT_THROW(pool.RunTasks(8,
                               [&](uint32_t task, int) {
                                 if (task == 5) throw std::runtime_error("task 5");
                               }),
                 std::runtime_error);
  }
  std::atomic<int> calls{0};
  pool.RunTasks(8, [&](uint32_t, int) { ++calls; });
  EXPECT_EQ(calls.load(), 8);
}

TEST(ThreadPoolDeathTest, RunInsideRunIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        ThreadPool pool({.threads = 2});
        pool.Run([&](int thread, int) {
          if (thread == 0) pool.Run([](int, int) {});
        });
      },
      "not reentrant");
}

TEST(SplitWorkTest, CoversEveryItemOnceAtMultiplesOfTheGrain) {
  for (int64_t n : {0, 1, 7, 8, 9, 64, 65, 1000}) {
    for (int threads : {1, 2, 3, 7, 16}) {
      for (int64_t grain : {1, 8, 16}) {
        int64_t expected = 0;
        for (int thread = 0; thread < threads; ++thread) {
          const WorkRange range = SplitWork(n, thread, threads, grain);
          ASSERT_EQ(range.begin, expected);
          ASSERT_LE(range.begin, range.end);
          if (range.end != n) {
            ASSERT_EQ(range.end % grain, 0);
          }
          expected = range.end;
        }
        ASSERT_EQ(expected, n);
      }
    }
  }
}

TEST(SplitWorkTest, IsEvenToOneGrain) {
  for (int thread = 0; thread < 3; ++thread) {
    const WorkRange range = SplitWork(100 * 8, thread, 3, 8);
    EXPECT_GE(range.end - range.begin, 33 * 8);
    EXPECT_LE(range.end - range.begin, 34 * 8);
  }
}

}  // namespace
}  // namespace tandem
