// Booked bytes against counters made up here: which counter a path runs through, what is within its
// tolerance, and what happens where a counter lags, wraps, or is not there.
#include "engine/lab/traffic_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace tandem {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kGiB = uint64_t{1} << 30;

CounterUse Use(GpuCounter counter) {
  return CounterUse{PathKind::kCopy, "d0 to d1", "gpu0", "d0", counter};
}

CounterCheck Compare(GpuCounter counter, uint64_t booked, uint64_t before, uint64_t after) {
  return CompareWithCounter(Use(counter), Bytes{booked}, Reading<uint64_t>(before),
                            Reading<uint64_t>(after));
}

TEST(CompareWithCounterTest, HoldsNvlinkToTwoPercentAndPcieToTen) {
  for (const auto& [counter, share] :
       {std::pair(GpuCounter::kNvlinkSent, 0.02), {GpuCounter::kPcieReceived, 0.10}}) {
    for (double off : {-share, share}) {
      const auto inside = static_cast<uint64_t>(kGiB * (1 + off * 0.99));
      const auto outside = static_cast<uint64_t>(kGiB * (1 + off * 1.01));
      EXPECT_EQ(Compare(counter, kGiB, 7, 7 + inside).verdict, CounterVerdict::kMeasured) << off;
      const CounterCheck wrong = Compare(counter, kGiB, 7, 7 + outside);
      EXPECT_EQ(wrong.verdict, CounterVerdict::kMismatch) << off;
      EXPECT_EQ(wrong.counted, Bytes{outside});
      EXPECT_EQ(wrong.tolerance, share);
    }
  }
  EXPECT_EQ(Compare(GpuCounter::kNvlinkSent, kGiB, 5, 5).verdict, CounterVerdict::kMismatch)
      << "a counter that stands still";
}

TEST(CompareWithCounterTest, APcieCounterMayWrapOnce) {
  const uint64_t before = 0xffffff00u, after = kGiB - 256;
  const CounterCheck check = Compare(GpuCounter::kPcieSent, kGiB, before, after);
  EXPECT_EQ(check.counted, Bytes{kGiB});
  EXPECT_EQ(check.verdict, CounterVerdict::kMeasured);
  EXPECT_EQ(Compare(GpuCounter::kNvlinkSent, kGiB, before, after).counted, Bytes{})
      << "NVLink's has 64 bits";
}

TEST(CompareWithCounterTest, AMissingReadingIsNotAvailable) {
  const auto missing = Reading<uint64_t>::Missing("nvml: no permission");
  for (bool first : {true, false}) {
    const CounterCheck check =
        CompareWithCounter(Use(GpuCounter::kPcieSent), Bytes{kGiB}, first ? missing : 1u,
                           first ? Reading<uint64_t>(1u) : missing);
    EXPECT_EQ(check.verdict, CounterVerdict::kNotAvailable);
    EXPECT_EQ(check.why, "nvml: no permission");
    EXPECT_EQ(check.counter, "pcie_sent of d0");
  }
}

// Shows what was moved only after `lag` waits.
class LaggingMonitor final : public GpuMonitor {
 public:
  Reading<std::string> DriverVersion() override { return std::string("1"); }
  GpuState State(const std::string&) override { return {}; }
  Reading<std::vector<NvlinkEnd>> Nvlinks(const std::string&) override {
    return std::vector<NvlinkEnd>{};
  }
  Reading<uint64_t> Count(const std::string& gpu, GpuCounter) override {
    if (missing.count(gpu) != 0) return Reading<uint64_t>::Missing("nvml: none on " + gpu);
    return shown;
  }
  Reading<std::string> CommonAncestor(const std::string&, const std::string&) override {
    return std::string("system");
  }
  void Settle() {
    ++waits;
    if (moved > 0 && waits > lag) shown = moved;
  }

  std::map<std::string, int> missing;
  uint64_t shown = 0, moved = 0;
  int waits = 0, lag = 0;
};

std::vector<CounterCheck> CheckWith(LaggingMonitor& monitor, uint64_t counted) {
  return CheckCounters(
      monitor, {Use(GpuCounter::kNvlinkSent)},
      [&] {
        monitor.moved = counted;
        return Bytes{kGiB};
      },
      [&] { monitor.Settle(); });
}

TEST(CheckCountersTest, WaitsForACounterThatLags) {
  LaggingMonitor monitor;
  monitor.lag = 10;
  const auto checks = CheckWith(monitor, kGiB);
  ASSERT_EQ(checks.size(), 1u);
  EXPECT_EQ(checks[0].verdict, CounterVerdict::kMeasured);
  EXPECT_EQ(monitor.waits, 11);
}

TEST(CheckCountersTest, StopsWaitingForOneThatNeverComes) {
  LaggingMonitor monitor;
  EXPECT_EQ(CheckWith(monitor, kGiB / 2)[0].verdict, CounterVerdict::kMismatch);
  EXPECT_LT(monitor.waits, 100);
  // More than was booked is wrong at once.
  LaggingMonitor more;
  EXPECT_EQ(CheckWith(more, 2 * kGiB)[0].verdict, CounterVerdict::kMismatch);
  EXPECT_EQ(more.waits, 2);
}

TEST(CheckCountersTest, MovesNothingWhereNoCounterIs) {
  LaggingMonitor monitor;
  monitor.missing = {{"gpu0", 1}};
  const auto checks = CheckWith(monitor, kGiB);
  EXPECT_EQ(monitor.moved, 0u);
  ASSERT_EQ(checks.size(), 1u);
  EXPECT_EQ(checks[0].verdict, CounterVerdict::kNotAvailable);
  EXPECT_THAT(checks[0].why, HasSubstr("none on gpu0"));
}

TEST(CountersOfTest, AreThoseThatThePathRunsThrough) {
  Rig rig = ThisMachineRig(2);
  rig.gpus = {0, 1};
  const std::vector<std::string> ids{"a", "b"}, one{"a", "a"};
  rig.link.kind = LinkKind::kNvlink;
  const auto direct = CountersOf(rig, PathKind::kCopy, 1, 0, ids);
  ASSERT_EQ(direct.size(), 2u);
  EXPECT_EQ(direct[0].counter, GpuCounter::kNvlinkSent);
  EXPECT_EQ(direct[0].gpu, "b");
  EXPECT_EQ(direct[0].of, "d1");
  EXPECT_EQ(direct[1].counter, GpuCounter::kNvlinkReceived);
  EXPECT_EQ(direct[1].gpu, "a");
  const auto staged = CountersOf(rig, PathKind::kHostStaged, 0, 1, ids);
  EXPECT_EQ(staged[0].counter, GpuCounter::kPcieSent);
  EXPECT_EQ(staged[1].counter, GpuCounter::kPcieReceived);
  rig.link.kind = LinkKind::kPcieP2p;
  EXPECT_EQ(CountersOf(rig, PathKind::kCopy, 0, 1, ids)[0].counter, GpuCounter::kPcieSent);
  EXPECT_THAT(CountersOf(rig, PathKind::kCopy, 0, 1, one), IsEmpty());
  EXPECT_EQ(CountersOf(rig, PathKind::kHostStaged, 0, 1, one).size(), 2u) << "crosses PCIe twice";
}

}  // namespace
}  // namespace tandem
