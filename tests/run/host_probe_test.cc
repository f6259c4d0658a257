// The probe gives plausible, positive roofs and keeps to its share of the time.
#include "engine/run/host_probe.h"

#include <gtest/gtest.h>

#include <chrono>

#include "engine/base/error.h"
#include "engine/run/host_device_probe.h"

namespace tandem {
namespace {

TEST(HostProbeTest, RatesArePositiveAndCachesAreNoSlowerThanMemory) {
  ThreadPool pool({.threads = 1});
  for (ArithmeticKind kind : {ArithmeticKind::kF32, ArithmeticKind::kInt8}) {
    const HostProbe probe(pool, kind);
    EXPECT_GT(probe.flops(), 1e8);
    const double l1 = probe.bytes_per_s(8e3);
    const double memory = probe.bytes_per_s(1e9);
    EXPECT_GT(memory, 1e8);
    // Neighbours can slow a measurement down, not by half in the median.
    EXPECT_GT(l1, memory / 2);
  }
}

TEST(HostProbeTest, InterpolatesBetweenSizes) {
  ThreadPool pool({.threads = 1});
  const HostProbe probe(pool, ArithmeticKind::kF32);
  double last = probe.bytes_per_s(1e3);
  for (double size = 1e3; size < 1e9; size *= 1.05) {
    const double rate = probe.bytes_per_s(size);
    EXPECT_LT(std::abs(rate - last), 0.5 * std::max(rate, last)) << "a jump at " << size;
    last = rate;
  }
}

TEST(HostProbeTest, KeepsToItsShare) {
  ThreadPool pool({.threads = 1});
  HostProbe probe(pool, ArithmeticKind::kF32);
  const auto start = std::chrono::steady_clock::now();
  // A second of steps in a thousand parts.
  for (int i = 0; i < 1000; ++i) probe.Interleave(Nanos{1000000});
  const double spent =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_GT(spent, 0);
  // One slice may overshoot, and on a busy machine a slice takes longer than it should.
  EXPECT_LT(spent, 3 * HostProbe::kShare + 0.05);
}

TEST(HostDeviceProbeTest, MeasuresWhatACpuHasAndSaysWhatItLacks) {
  ThreadPool pool({.threads = 1});
  const auto probe = MakeHostDeviceProbe(pool, 1);
  for (DeviceMeasure what :
       {DeviceMeasure::kMemoryRead, DeviceMeasure::kMemoryCopy, DeviceMeasure::kProductBf16,
        DeviceMeasure::kProductInt8, DeviceMeasure::kProductF32}) {
    probe->Ask(what);
    EXPECT_GT(probe->Take(), 1e7);
  }
  probe->Ask(DeviceMeasure::kLaunchEager);
  EXPECT_GT(probe->Take(), 0);
  for (DeviceMeasure what : {DeviceMeasure::kProductF16, DeviceMeasure::kLaunchGraph}) {
    try {
      probe->Ask(what);
      ADD_FAILURE() << "not refused";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    }
  }
}

}  // namespace
}  // namespace tandem
