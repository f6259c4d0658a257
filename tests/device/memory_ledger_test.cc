// Who holds what, and what is refused.
#include "engine/device/memory_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

std::string RefusalOf(MemoryLedger& ledger, MemoryUse use, uint64_t bytes) {
  try {
    ledger.Book(use, Bytes{bytes}, "a thing");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDevice);
    return error.what();
  }
  return "";
}

TEST(MemoryLedgerTest, CountsByUseAndKeepsThePeak) {
  MemoryLedger ledger("d0", Bytes{0});
  ledger.Book(MemoryUse::kWeights, Bytes{100}, "layer 0");
  ledger.Book(MemoryUse::kKv, Bytes{50}, "pages");
  ledger.Release(MemoryUse::kWeights, Bytes{60});
  EXPECT_EQ(ledger.used(), Bytes{90});
  EXPECT_EQ(ledger.used(MemoryUse::kWeights), Bytes{40});
  EXPECT_EQ(ledger.used(MemoryUse::kKv), Bytes{50});
  EXPECT_EQ(ledger.used(MemoryUse::kSlots), Bytes{0});
  EXPECT_EQ(ledger.peak(), Bytes{150});
  EXPECT_EQ(ledger.allocations(), 2u);
}

TEST(MemoryLedgerTest, FillsToTheLastByteAndRefusesOneMore) {
  MemoryLedger ledger("d1", Bytes{1000});
  ledger.Book(MemoryUse::kWeights, Bytes{900}, "layers");
  ledger.Book(MemoryUse::kKv, Bytes{100}, "pages");
  const std::string message = RefusalOf(ledger, MemoryUse::kSlots, 1);
  EXPECT_THAT(message, HasSubstr("d1"));
  EXPECT_THAT(message, HasSubstr("a thing (slots)"));
  EXPECT_THAT(message, HasSubstr("1 are missing"));
  EXPECT_THAT(message, HasSubstr("weights 900"));
  EXPECT_EQ(ledger.used(), Bytes{1000}) << "a refusal books nothing";
  EXPECT_EQ(ledger.allocations(), 2u);
}

TEST(MemoryLedgerTest, RefusesASizeThatWouldWrapAround) {
  MemoryLedger ledger("d0", Bytes{1000});
  ledger.Book(MemoryUse::kWeights, Bytes{900}, "layers");
  EXPECT_NE(RefusalOf(ledger, MemoryUse::kKv, ~uint64_t{0} - 500), "");
}

TEST(MemoryLedgerTest, RefusesEverythingWhileFrozen) {
  MemoryLedger ledger("d0", Bytes{0});
  ledger.Freeze(true);
  EXPECT_THAT(RefusalOf(ledger, MemoryUse::kWorkspace, 1), HasSubstr("after loading"));
  ledger.Freeze(false);
  EXPECT_EQ(RefusalOf(ledger, MemoryUse::kWorkspace, 1), "");
}

TEST(MemoryLedgerDeathTest, ReleasingMoreThanBookedIsABug) {
  MemoryLedger ledger("d0", Bytes{0});
  ledger.Book(MemoryUse::kKv, Bytes{10}, "pages");
  EXPECT_DEATH(ledger.Release(MemoryUse::kKv, Bytes{11}), "more released");
  EXPECT_DEATH(ledger.Release(MemoryUse::kSlots, Bytes{1}), "more released");
}

TEST(MemoryUseTest, HasStableNames) {
  EXPECT_STREQ(ToString(MemoryUse::kWeights), "weights");
  EXPECT_STREQ(ToString(MemoryUse::kSlots), "slots");
  EXPECT_STREQ(ToString(MemoryUse::kKv), "kv");
  EXPECT_STREQ(ToString(MemoryUse::kActivations), "activations");
  EXPECT_STREQ(ToString(MemoryUse::kWorkspace), "workspace");
}

}  // namespace
}  // namespace tandem
