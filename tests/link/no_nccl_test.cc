// A build without NCCL: path nccl is refused, saying what would have it and what there is instead.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/link/cuda/nccl_transport.h"

namespace tandem {
namespace {

TEST(NoNcclTest, IsRefusedWithWhatToDo) {
  const std::vector<int> gpus{0, 1};
  try {
    MakeNcclTransport({.gpus = gpus, .wire_ops = {}});
    FAIL() << "not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("built without NCCL"));
    EXPECT_THAT(error.what(), ::testing::HasSubstr("--path copy"));
  }
}

}  // namespace
}  // namespace tandem
