// The host's processor beside cards: its queues keep their order and each other's, wait for marks
// of other devices without holding up who asks, and tell of what went wrong once.
#include "engine/device/cpu/cpu_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "engine/base/error.h"
#include "engine/device/cpu/cpu_device.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

class CpuQueueTest : public ::testing::Test {
 protected:
  DeviceQueue& queue(QueueRole role) { return *device_->queue(role); }

  std::shared_ptr<ThreadPool> pool_ = std::make_shared<ThreadPool>(ThreadPoolOptions{1});
  CpuDevice host_{kHost, Bytes{1 << 20}, pool_};
  std::unique_ptr<Device> device_ = MakeQueuedCpuDevice(DeviceId{1}, Bytes{1 << 20}, host_);
};

// A mark of another kind of device, passed when the test says so.
class ForeignEvent final : public DeviceEvent {
 public:
  Nanos Since(const DeviceEvent&) const override { return {}; }
  void Finish() const override {}
  void WhenPassed(std::function<void()> tell) const override { tells_.push_back(std::move(tell)); }
  void Pass() const {
    for (const auto& tell : std::exchange(tells_, {})) tell();
  }

 private:
  mutable std::vector<std::function<void()>> tells_;
};

TEST_F(CpuQueueTest, DoesWhatItIsAskedInOrderOnAThreadOfItsOwn) {
  std::vector<int> done;
  std::thread::id where;
  for (int i = 0; i < 100; ++i) {
    queue(QueueRole::kCompute).Call([&, i] {
      done.push_back(i);
      where = std::this_thread::get_id();
    });
  }
  queue(QueueRole::kCompute).Finish();
  ASSERT_EQ(done.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(done[static_cast<size_t>(i)], i);
  EXPECT_NE(where, std::this_thread::get_id());
}

TEST_F(CpuQueueTest, AQueueWaitsForAnothersMarkAndNotForLaterOnes) {
  DeviceQueue& first = queue(QueueRole::kCompute);
  DeviceQueue& then = queue(QueueRole::kComm);
  const auto made = first.MakeEvent();
  const auto seen = then.MakeEvent();
  std::atomic<int> value = 0;
  std::atomic<bool> go = false;
  int got = -1;
  then.WaitFor(*made);  // never marked: passed
  first.Call([&] { value = 1; });
  first.Mark(*made);
  then.WaitFor(*made);
  first.Call([&] {
    while (!go) std::this_thread::yield();
    value = 2;
  });
  first.Mark(*made);
  then.Call([&] { got = value; });
  then.Mark(*seen);
  seen->Finish();
  EXPECT_EQ(got, 1) << "the second mark is not waited for";
  go = true;
  made->Finish();
  EXPECT_EQ(value, 2);
  const auto again = first.MakeEvent();
  first.Mark(*again);
  again->Finish();
  EXPECT_GE(again->Since(*made), Nanos{0});
}

TEST_F(CpuQueueTest, WaitsForAnotherDevicesMarkWithoutHoldingUpTheAsker) {
  const ForeignEvent mark;
  std::atomic<bool> done = false;
  queue(QueueRole::kCompute).WaitFor(mark);
  queue(QueueRole::kCompute).Call([&] { done = true; });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_FALSE(done);
  mark.Pass();
  queue(QueueRole::kCompute).Finish();
  EXPECT_TRUE(done);
}

TEST_F(CpuQueueTest, TellsOthersWhenAMarkIsPassed) {
  DeviceQueue& compute = queue(QueueRole::kCompute);
  const auto mark = compute.MakeEvent();
  std::atomic<bool> go = false, told = false;
  compute.Call([&] {
    while (!go) std::this_thread::yield();
  });
  compute.Mark(*mark);
  mark->WhenPassed([&] { told = true; });
  EXPECT_FALSE(told);
  go = true;
  compute.Finish();
  EXPECT_TRUE(told);
  told = false;
  mark->WhenPassed([&] { told = true; });
  EXPECT_TRUE(told) << "at once where it is passed";
}

TEST_F(CpuQueueTest, WhatGoesWrongIsToldOnceAndMarksArePassedAllTheSame) {
  DeviceQueue& compute = queue(QueueRole::kCompute);
  const auto mark = compute.MakeEvent();
  bool ran = false;
  compute.Call([] { Fail(ErrorCode::kDevice, "injected"); });
  compute.Call([&] { ran = true; });
  compute.Mark(*mark);
  EXPECT_THROW(mark->Finish(), Error);
  try {
    compute.Finish();
    FAIL() << "an error that nobody was told of";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("injected"));
  }
  EXPECT_FALSE(ran);
  compute.Call([&] { ran = true; });
  compute.Mark(*mark);
  EXPECT_NO_THROW(mark->Finish());
  EXPECT_NO_THROW(compute.Finish());
  EXPECT_TRUE(ran);
}

TEST_F(CpuQueueTest, ValuesOfStepsAreInTheMemoryThatCardsReach) {
  const Buffer values = device_->Allocate(MemoryUse::kActivations, Bytes{4096}, "test");
  const Buffer weights = device_->Allocate(MemoryUse::kWeights, Bytes{8192}, "test");
  EXPECT_EQ(host_.ledger().used(), Bytes{4096});
  EXPECT_EQ(device_->ledger().used(), Bytes{4096 + 8192});
  std::vector<std::byte> sent(4096, std::byte{3});
  device_->Upload(values.data(), sent.data(), sent.size());
  queue(QueueRole::kCopyIn)
      .Copy({.to = weights.data(),
             .to_stride = 64,
             .from = values.data(),
             .row_bytes = 8,
             .rows = 2});
  queue(QueueRole::kCopyIn).Finish();
  EXPECT_EQ(weights.data()[64 + 7], std::byte{3});
  EXPECT_EQ(weights.data()[8], std::byte{0});
}

}  // namespace
}  // namespace tandem
