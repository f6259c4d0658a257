// Buffers of a virtual CPU device: booked, zeroed, aligned, moved and freed.
#include "engine/device/cpu/cpu_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "engine/base/error.h"

namespace tandem {
namespace {

std::shared_ptr<ThreadPool> OneThread() {
  return std::make_shared<ThreadPool>(ThreadPoolOptions{.threads = 1});
}

TEST(CpuDeviceTest, AllocatesZeroedAlignedBookedMemory) {
  CpuDevice device(DeviceId{0}, Bytes{0}, OneThread());
  for (uint64_t size : {uint64_t{1}, uint64_t{63}, uint64_t{4096}, uint64_t{5} << 20}) {
    Buffer buffer = device.Allocate(MemoryUse::kKv, Bytes{size}, "pages");
    ASSERT_TRUE(buffer);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    EXPECT_TRUE(std::all_of(buffer.data(), buffer.data() + size,
                            [](std::byte b) { return b == std::byte{0}; }));
    EXPECT_EQ(device.ledger().used(MemoryUse::kKv), Bytes{size});
  }
  EXPECT_EQ(device.ledger().used(), Bytes{0});
}

TEST(CpuDeviceTest, MovesAndReassignsBuffers) {
  CpuDevice device(DeviceId{1}, Bytes{0}, OneThread());
  Buffer a = device.Allocate(MemoryUse::kSlots, Bytes{100}, "a");
  std::byte* data = a.data();
  Buffer b = std::move(a);
  EXPECT_FALSE(a);
  EXPECT_EQ(b.data(), data);
  Buffer c = device.Allocate(MemoryUse::kWeights, Bytes{200}, "c");
  c = std::move(b);
  EXPECT_EQ(c.data(), data);
  EXPECT_EQ(device.ledger().used(MemoryUse::kWeights), Bytes{0}) << "c's first memory was freed";
  EXPECT_EQ(device.ledger().used(MemoryUse::kSlots), Bytes{100});
  c = Buffer();
  EXPECT_EQ(device.ledger().used(), Bytes{0});
}

TEST(CpuDeviceTest, RefusesWhatDoesNotFitAndBooksNothing) {
  CpuDevice device(DeviceId{0}, Bytes{1000}, OneThread());
  Buffer held = device.Allocate(MemoryUse::kWeights, Bytes{600}, "layers");
  EXPECT_THROW(device.Allocate(MemoryUse::kKv, Bytes{401}, "pages"), Error);
  EXPECT_EQ(device.ledger().used(), Bytes{600});
  EXPECT_TRUE(device.Allocate(MemoryUse::kKv, Bytes{400}, "pages"));
}

TEST(CpuDeviceTest, ReportsWhatTheSystemRefuses) {
  CpuDevice device(DeviceId{0}, Bytes{0}, OneThread());
  EXPECT_THROW(device.Allocate(MemoryUse::kKv, Bytes{~uint64_t{0} - 4096}, "pages"), Error);
  EXPECT_EQ(device.ledger().used(), Bytes{0});
}

TEST(CpuDeviceTest, GivesAnEmptyBufferForZeroBytes) {
  CpuDevice device(DeviceId{0}, Bytes{0}, OneThread());
  EXPECT_FALSE(device.Allocate(MemoryUse::kSlots, Bytes{0}, "no slots"));
  EXPECT_EQ(device.ledger().allocations(), 0u);
}

TEST(CpuDeviceTest, IsNamedByItsNumberOrAsTheHost) {
  CpuDevice device(DeviceId{2}, Bytes{0}, OneThread());
  EXPECT_EQ(device.name(), "cpu:2");
  CpuDevice host(kHost, Bytes{0}, OneThread());
  EXPECT_EQ(host.name(), "host");
}

}  // namespace
}  // namespace tandem
