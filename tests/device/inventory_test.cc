// The GPU inventory: where there is no driver it says so, and where there is one it names the
// cards.
#include "engine/device/inventory.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(InventoryTest, AlwaysSaysWhy) {
  const GpuInventory found = FindGpus();
  EXPECT_FALSE(found.driver_message.empty());
  EXPECT_EQ(found.driver_message.find('\n'), std::string::npos);
  EXPECT_EQ(found.built_with_cuda, !found.libraries.empty());
  if (!found.built_with_cuda) {
    EXPECT_TRUE(found.gpus.empty());
  }
  RecordProperty("driver_message", found.driver_message);
}

TEST(InventoryTest, DescribesEveryGpuAndPair) {
  const GpuInventory found = FindGpus();
  if (found.gpus.empty()) GTEST_SKIP() << found.driver_message;
  for (const GpuInfo& gpu : found.gpus) {
    EXPECT_FALSE(gpu.name.empty());
    EXPECT_GT(gpu.total_memory.value, uint64_t{1} << 28);
    EXPECT_GT(gpu.sm_count, 0);
    EXPECT_GT(gpu.compute_major, 0);
    EXPECT_FALSE(gpu.pci_bus_id.empty());
  }
  EXPECT_EQ(found.peer_paths.size(), found.gpus.size() * (found.gpus.size() - 1));
}

}  // namespace
}  // namespace tandem
