// The table of switches covers the struct, and its words are what they set.
#include "engine/run/gpu_switches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

namespace tandem {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

std::vector<unsigned char> BytesOf(const GpuSwitches& gpu) {
  std::vector<unsigned char> bytes(sizeof gpu);
  std::memcpy(bytes.data(), &gpu, sizeof gpu);
  return bytes;
}

// Bytes of the struct that one of the words sets otherwise than the default.
std::set<size_t> ChangedBy(const GpuSwitch& s) {
  std::set<size_t> changed;
  for (const GpuSwitch::Word& word : s.words) {
    GpuSwitches gpu;
    EXPECT_TRUE(s.Set(gpu, word.text)) << s.key;
    const auto before = BytesOf(GpuSwitches{}), after = BytesOf(gpu);
    for (size_t i = 0; i < after.size(); ++i) {
      if (after[i] != before[i]) changed.insert(i);
    }
  }
  return changed;
}

TEST(GpuSwitchesTest, EveryMemberHasOneEntryAndEveryEntryOneMember) {
  std::vector<int> entries(sizeof(GpuSwitches));
  for (const GpuSwitch& s : AllGpuSwitches()) {
    const std::set<size_t> changed = ChangedBy(s);
    EXPECT_EQ(changed.size(), 1u) << s.key;
    for (size_t byte : changed) ++entries[byte];
  }
  EXPECT_THAT(entries, Each(1)) << "by byte of the struct: 0 is a switch without an entry";
}

TEST(GpuSwitchesTest, AWordThatIsSetIsTheWordThatIsTold) {
  for (const GpuSwitch& s : AllGpuSwitches()) {
    for (const GpuSwitch::Word& word : s.words) {
      GpuSwitches gpu;
      ASSERT_TRUE(s.Set(gpu, word.text)) << s.key;
      EXPECT_STREQ(s.WordOf(gpu), word.text) << s.key;
      const std::string before = SwitchWords(gpu);
      EXPECT_FALSE(s.Set(gpu, "nonsense")) << s.key;
      EXPECT_EQ(SwitchWords(gpu), before) << s.key;
      EXPECT_THAT(s.Wanted(), HasSubstr(word.text)) << s.key;
    }
  }
}

TEST(GpuSwitchesTest, NamesAreOfOneSwitchAlone) {
  std::set<std::string> names;
  for (const GpuSwitch& s : AllGpuSwitches()) {
    EXPECT_TRUE(names.insert(s.key).second) << s.key;
    EXPECT_TRUE(names.insert(s.flag()).second) << s.flags;
    EXPECT_EQ(s.flag().substr(0, 2), "--") << s.flags;
  }
}

TEST(GpuSwitchesTest, WhatIsWantedIsListed) {
  std::map<std::string, std::string> wanted;
  for (const GpuSwitch& s : AllGpuSwitches()) wanted[s.flag()] = s.Wanted();
  EXPECT_EQ(wanted["--prefill-products"], "own or cublaslt") << "the first of two names";
  EXPECT_EQ(wanted["--p2p-way"], "auto, push or pull");
}

TEST(GpuSwitchesTest, WhatRecordsTellIsDefined) {
  std::ifstream file("results/METRICS.md");
  const std::string metrics(std::istreambuf_iterator<char>(file), {});
  for (const auto& [key, word] : ToldSwitches({})) {
    EXPECT_THAT(metrics, HasSubstr(std::string("`") + key + "`"));
  }
}

}  // namespace
}  // namespace tandem
