// How matrices are cut into tiles for a library.
#include <gtest/gtest.h>

#include "kernels/cuda/layout.h"
#include "kernels/cuda/library_products.h"

namespace tandem::cuda {
namespace {

constexpr int kH200 = 132, kRtx3090 = 82;

uint64_t BytesOf(const TileShape& tile) {
  return uint64_t{tile.panels} * kPanelRows * tile.cols * sizeof(uint16_t);
}

TEST(ShapeTilesTest, StaysWithinItsRoom) {
  for (uint32_t step : {64u, 256u, 512u, 700u, 1024u, 2048u, 65536u}) {
    const LibraryRoom room = LibraryRoomFor(step);
    for (uint32_t panels : {1u, 4u, 63u, 256u, 896u, 8016u}) {
      for (uint32_t cols : {64u, 576u, 4096u, 14336u, 53248u}) {
        for (int sms : {kH200, kRtx3090, 1}) {
          const TileShape tile = ShapeTiles(panels, cols, room, sms);
          EXPECT_GT(tile.panels, 0u);
          EXPECT_LE(tile.panels, panels);
          EXPECT_LE(BytesOf(tile), room.weight_bytes);
          EXPECT_LE(uint64_t{tile.panels} * kPanelRows * room.rows * sizeof(float),
                    room.output_bytes);
          // Parts of columns begin where blocks of every type do.
          EXPECT_TRUE(tile.cols == cols || (tile.cols < cols && tile.cols % 256 == 0))
              << tile.cols << " of " << cols;
        }
      }
    }
  }
}

TEST(ShapeTilesTest, TheHeightFollowsTheEnginesSteps) {
  EXPECT_EQ(LibraryRoomFor(1).rows, 256u);
  EXPECT_EQ(LibraryRoomFor(511).rows, 256u);
  EXPECT_EQ(LibraryRoomFor(512).rows, 512u);
  EXPECT_EQ(LibraryRoomFor(2047).rows, 1024u);
  EXPECT_EQ(LibraryRoomFor(4096).rows, 2048u);
}

// The matrices of an 8B Llama.
TEST(ShapeTilesTest, KeepsAnH200Busy) {
  const LibraryRoom long_steps = LibraryRoomFor(2048), short_steps = LibraryRoomFor(512);
  // 2048 rows: the cache holds a tile where that costs nothing, else tiles of full waves.
  EXPECT_EQ(ShapeTiles(256, 4096, long_steps, kH200).panels, 256u);
  EXPECT_LE(BytesOf(ShapeTiles(896, 4096, long_steps, kH200)), long_steps.near_bytes);
  const TileShape down = ShapeTiles(256, 14336, long_steps, kH200);
  EXPECT_EQ(down.panels % 128, 0u) << "128 blocks of 128 outputs by 256 rows, for 132";
  // 512 rows: all outputs at once, in parts of the columns, keep more of it busy than few outputs.
  const TileShape few = ShapeTiles(256, 14336, short_steps, kH200);
  EXPECT_EQ(few.panels, 256u);
  EXPECT_EQ(few.cols, 7168u);
}

}  // namespace
}  // namespace tandem::cuda
