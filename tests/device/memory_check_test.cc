// Ledger and driver: which differences are told of.
#include "engine/device/memory_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tandem {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t kMiB = uint64_t{1} << 20;

MemoryCheck Check(uint64_t ledger, uint64_t driver) {
  return {.gpu = 1, .ledger = Bytes{ledger}, .driver = Bytes{driver}, .room = Bytes{512 * kMiB}};
}

TEST(MemoryCheckTest, TheDriverMayCountItsOwnRoomBesides) {
  EXPECT_TRUE(Check(0, 0).agrees());
  EXPECT_TRUE(Check(8000 * kMiB, 8000 * kMiB).agrees());
  EXPECT_TRUE(Check(8000 * kMiB, 8512 * kMiB).agrees());
  EXPECT_FALSE(Check(8000 * kMiB, 8512 * kMiB + 1).agrees());
  EXPECT_TRUE(Check(0, 512 * kMiB).agrees());
  EXPECT_FALSE(Check(0, 513 * kMiB).agrees());
}

TEST(MemoryCheckTest, ItMayNotCountLessThanTheLedger) {
  EXPECT_TRUE(Check(100 * kMiB, 84 * kMiB).agrees()) << "16 MiB";
  EXPECT_FALSE(Check(100 * kMiB, 84 * kMiB - 1).agrees());
  EXPECT_TRUE(Check(10000 * kMiB, 9900 * kMiB).agrees()) << "1 %";
  EXPECT_FALSE(Check(10000 * kMiB, 9900 * kMiB - 1).agrees());
  EXPECT_FALSE(Check(~uint64_t{0} / 2, 0).agrees());
}

TEST(MemoryCheckTest, SaysBothCountsAndWhatIsWrong) {
  const std::string fine = Check(100 * kMiB, 120 * kMiB).Text();
  EXPECT_THAT(fine, HasSubstr("cuda:1: the ledger holds 100.0 MiB, the driver counts 120.0"));
  EXPECT_THAT(fine, Not(HasSubstr("want")));
  EXPECT_THAT(Check(100 * kMiB, 1 * kMiB).Text(), HasSubstr("gave memory back"));
  EXPECT_THAT(Check(100 * kMiB, 900 * kMiB).Text(), HasSubstr("not booked"));
}

}  // namespace
}  // namespace tandem
