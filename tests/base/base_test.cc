// Units, errors, clocks, hashes and suggestions.
#include <gtest/gtest.h>

#include "engine/base/check.h"
#include "engine/base/clock.h"
#include "engine/base/error.h"
#include "engine/base/human_bytes.h"
#include "engine/base/sha256.h"
#include "engine/base/suggest.h"
#include "engine/base/units.h"

namespace tandem {
namespace {

TEST(ErrorTest, CarriesCodeMessageAndTheCallersLine) {
  int line = 0;
  try {
    line = __LINE__ + 1;
    Fail(ErrorCode::kPlan, "plan: no");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kPlan);
    EXPECT_STREQ(error.what(), "plan: no");
    EXPECT_EQ(static_cast<int>(error.where().line()), line);
  }
}

TEST(CheckDeathTest, AbortsWithItsText) {
  EXPECT_DEATH(Check(false, "broken rule"), "broken rule");
}

TEST(UnitRangeTest, ContainsAndEmpty) {
  EXPECT_TRUE((UnitRange{0, 4}.Contains(UnitRange{1, 4})));
  EXPECT_FALSE((UnitRange{0, 4}.Contains(UnitRange{1, 5})));
  EXPECT_TRUE((UnitRange{3, 3}.empty()));
}

TEST(VirtualClockTest, NeverRunsBackwards) {
  VirtualClock clock;
  clock.AdvanceTo(Nanos{50});
  clock.AdvanceTo(Nanos{20});
  EXPECT_EQ(clock.Now(), Nanos{50});
}

TEST(Sha256Test, MatchesThePublishedVector) {
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(SuggestTest, NamesThatShareParts) {
  const std::vector<std::string> names{"nvlink3-bridge", "pcie4-x16-p2p", "pcie4-x8-p2p",
                                       "staged-pcie4-x16-3090"};
  EXPECT_EQ(NamesLike("pcie4-x16-host-staged", names, 2),
            (std::vector<std::string>{"staged-pcie4-x16-3090", "pcie4-x16-p2p"}));
  EXPECT_TRUE(NamesLike("zzz", names, 2).empty());
}

TEST(HumanBytesTest, HasThreeDigits) {
  EXPECT_EQ(HumanBytes(Bytes{999}), "999 B");
  EXPECT_EQ(HumanBytes(Bytes{72'195'088'896}), "72.2 GB");
  EXPECT_EQ(HumanBytes(Bytes{1'000'000'000}), "1 GB");
}

TEST(SuggestTest, FindsANearWordAndRefusesAFarOne) {
  std::vector<std::string> words{"layer_split", "tensor_split", "offload"};
  EXPECT_EQ(NearestWord("layer-split", words), "layer_split");
  EXPECT_EQ(NearestWord("offlaod", words), "offload");
  EXPECT_EQ(NearestWord("zzz", words), "");
}

}  // namespace
}  // namespace tandem
