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
