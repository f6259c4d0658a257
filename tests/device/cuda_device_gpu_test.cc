// A GPU as a Device: memory, queues, events, and the ledger beside the driver's own count. Skips
// where no GPU is; tools/gpu-check runs it where one is.
#include <gtest/gtest.h>

#include <vector>

#include "engine/base/error.h"
#include "engine/device/cuda/cuda_device.h"
#include "engine/device/inventory.h"

namespace tandem {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

class CudaDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const GpuInventory found = FindGpus();
    if (found.gpus.empty()) GTEST_SKIP() << found.driver_message;
    device_ = MakeCudaDevice(DeviceId{0}, found.gpus[0].index, Bytes{256 * kMiB});
  }
  Buffer Room(uint64_t bytes) {
    return device_->Allocate(MemoryUse::kWorkspace, Bytes{bytes}, "test");
  }
  std::vector<std::byte> Read(const Buffer& buffer) {
    std::vector<std::byte> bytes(buffer.size(), std::byte{0xee});
    device_->Download(bytes.data(), buffer.data(), bytes.size());
    return bytes;
  }
  std::unique_ptr<Device> device_;
};

TEST_F(CudaDeviceTest, MemoryIsZeroAndKeepsWhatIsUploaded) {
  const Buffer buffer = Room(kMiB + 3);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
  EXPECT_EQ(Read(buffer), std::vector<std::byte>(kMiB + 3));
  std::vector<std::byte> sent(kMiB + 3);
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<std::byte>(i * 7 + i / 251);
  device_->Upload(buffer.data(), sent.data(), sent.size());
  EXPECT_EQ(Read(buffer), sent);
}

TEST_F(CudaDeviceTest, AQueueWaitsForAnothersMark) {
  const uint64_t bytes = 64 * kMiB;
  const Buffer a = Room(bytes), b = Room(bytes);
  const std::vector<std::byte> sent(bytes, std::byte{42});
  const std::unique_ptr<Device> host = MakePinnedHost(Bytes{});
  const Buffer staging = host->Allocate(MemoryUse::kWorkspace, Bytes{bytes}, "test");
  host->Upload(staging.data(), sent.data(), bytes);
  DeviceQueue& first = *device_->queue(QueueRole::kCopyIn);
  DeviceQueue& then = *device_->queue(QueueRole::kComm);
  const auto begun = first.MakeEvent();
  const auto arrived = first.MakeEvent();
  const auto copied = then.MakeEvent();
  first.Mark(*begun);
  first.Copy({.to = a.data(), .from = staging.data(), .row_bytes = bytes});
  first.Mark(*arrived);
  then.WaitFor(*arrived);
  then.Copy({.to = b.data(), .from = a.data(), .row_bytes = bytes});
  then.Mark(*copied);
  copied->Finish();
  EXPECT_EQ(Read(b), sent);
  EXPECT_GT(arrived->Since(*begun), Nanos{0});
  EXPECT_GE(copied->Since(*arrived), Nanos{0});
}

TEST_F(CudaDeviceTest, CopiesRows) {
  const Buffer a = Room(64), b = Room(64);
  std::vector<std::byte> sent(64);
  for (size_t i = 0; i < 64; ++i) sent[i] = static_cast<std::byte>(i + 1);
  device_->Upload(a.data(), sent.data(), 64);
  DeviceQueue& queue = *device_->queue(QueueRole::kCompute);
  queue.Copy({.to = b.data(),
              .to_stride = 16,
              .from = a.data(),
              .from_stride = 8,
              .row_bytes = 4,
              .rows = 3});
  queue.Finish();
  const std::vector<std::byte> got = Read(b);
  for (size_t i = 0; i < 64; ++i) {
    const std::byte want = i % 16 < 4 && i / 16 < 3 ? sent[i / 16 * 8 + i % 16] : std::byte{0};
    EXPECT_EQ(got[i], want) << i;
  }
}

TEST_F(CudaDeviceTest, TheDriverCountsWhatTheLedgerHolds) {
  const int gpu = FindGpus().gpus[0].index;
  const Bytes before = ReadGpuMemory(gpu).free;
  const Buffer buffer = Room(128 * kMiB);
  const Bytes after = ReadGpuMemory(gpu).free;
  EXPECT_EQ(device_->ledger().used(), Bytes{128 * kMiB});
  ASSERT_GE(before, after);
  EXPECT_GE((before - after).value, 128 * kMiB);
  EXPECT_LT((before - after).value, 132 * kMiB) << "the driver rounds up to its pages, no more";
}

TEST_F(CudaDeviceTest, RefusesMoreThanItsPartAndLives) {
  EXPECT_THROW(Room(257 * kMiB), Error);
  const auto unlimited = MakeCudaDevice(DeviceId{1}, FindGpus().gpus[0].index, Bytes{});
  EXPECT_THROW(unlimited->Allocate(MemoryUse::kKv, Bytes{uint64_t{1} << 46}, "test"), Error);
  EXPECT_EQ(unlimited->ledger().used(), Bytes{});
  EXPECT_EQ(Read(Room(16)), std::vector<std::byte>(16));
}

}  // namespace
}  // namespace tandem
