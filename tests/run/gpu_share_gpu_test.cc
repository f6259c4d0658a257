// A GPU cut into two parts, on a real one: no multiprocessor is in both, kernels of both run at
// once, and the calibrated size is what it says. Skips where there is none; tools/gpu-check runs it
// where one is.
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>

#include "engine/base/error.h"
#include "engine/device/cuda/cuda_device.h"
#include "engine/device/inventory.h"
#include "engine/run/gpu_share.h"
#include "kernels/cuda/share_probe.h"

namespace tandem {
namespace {

class GpuShareGpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const GpuInventory found = FindGpus();
    if (found.gpus.empty()) GTEST_SKIP() << found.driver_message;
    gpu_ = found.gpus[0].index;
    cut_ = ReadGpuCut(gpu_);
    // The largest size that goes twice.
    sms_ = cut_.sms / 2 / cut_.step * cut_.step;
    ASSERT_GE(sms_, cut_.least);
  }
  int gpu_ = 0;
  GpuCut cut_;
  uint32_t sms_ = 0;
};

TEST_F(GpuShareGpuTest, PartsShareNoMultiprocessor) {
  const auto parts = CutGpu(gpu_, 2, sms_);
  const auto first = MultiprocessorsOf(gpu_, parts[0]);
  const auto second = MultiprocessorsOf(gpu_, parts[1]);
  EXPECT_EQ(first.size(), sms_);
  EXPECT_EQ(second.size(), sms_);
  std::vector<uint32_t> both;
  std::set_intersection(first.begin(), first.end(), second.begin(), second.end(),
                        std::back_inserter(both));
  EXPECT_TRUE(both.empty()) << "multiprocessor " << both.front() << " is in both";
}

TEST_F(GpuShareGpuTest, KernelsOfBothRunAtOnce) {
  EXPECT_TRUE(PartsRunTogether(gpu_, CutGpu(gpu_, 2, sms_)));
}

TEST_F(GpuShareGpuTest, TheCalibratedSizeReadsAlikeAloneAndBeside) {
  const GpuShareProbes probes = ThisMachinesShares();
  const GpuShare share =
      CalibrateShare(cut_, 2, [&](uint32_t sms) { return probes.measure(gpu_, 2, sms); });
  RecordProperty("sms", static_cast<int>(share.sms));
  RecordProperty("alone_gb_per_s", static_cast<int>(share.alone_bytes_per_s * 1e-9));
  EXPECT_TRUE(share.balanced) << share.sms << " of " << share.gpu_sms;
  EXPECT_GT(share.alone_bytes_per_s, 1e9);
  EXPECT_LE(2 * share.sms, share.gpu_sms);
}

TEST_F(GpuShareGpuTest, DevicesOfPartsCopyAndMark) {
  const auto parts = CutGpu(gpu_, 2, sms_);
  const auto d0 = MakeCudaDevice(DeviceId{0}, gpu_, Bytes{1 << 24}, parts[0]);
  const auto d1 = MakeCudaDevice(DeviceId{1}, gpu_, Bytes{1 << 24}, parts[1]);
  const Buffer a = d0->Allocate(MemoryUse::kWorkspace, Bytes{4096}, "test");
  const Buffer b = d1->Allocate(MemoryUse::kWorkspace, Bytes{4096}, "test");
  const std::vector<std::byte> sent(4096, std::byte{7});
  d0->Upload(a.data(), sent.data(), sent.size());
  DeviceQueue& from = *d0->queue(QueueRole::kComm);
  DeviceQueue& to = *d1->queue(QueueRole::kComm);
  const auto ready = from.MakeEvent();
  from.Mark(*ready);
  to.WaitFor(*ready);
  to.Copy({.to = b.data(), .from = a.data(), .row_bytes = 4096});
  to.Finish();
  std::vector<std::byte> got(4096);
  d1->Download(got.data(), b.data(), got.size());
  EXPECT_EQ(got, sent);
}

TEST_F(GpuShareGpuTest, WhatCannotBeCutIsRefused) {
  EXPECT_THROW(CutGpu(gpu_, 2, cut_.sms), Error);
}

}  // namespace
}  // namespace tandem
