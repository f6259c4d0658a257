// NFC against Python's unicodedata (tools/make-nfc-table): every code point, every composed letter
// in the situations where marks may block it, and seeded sequences.
#include "engine/model/text/nfc.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/base/sha256.h"
#include "engine/model/text/nfc_table.h"
#include "engine/model/text/utf8.h"
#include "tests/model/text/cpu_time.h"

namespace tandem::text {
namespace {

std::string Utf8(std::initializer_list<uint32_t> code_points) {
  std::string out;
  for (uint32_t c : code_points) AppendUtf8(c, out);
  return out;
}

class NfcTest : public testing::Test {
 protected:
  void SetUp() override {
    std::ifstream file("tests/golden/text/nfc.json");
    ASSERT_TRUE(file) << "run from the repository's root";
    golden_ = nlohmann::json::parse(file);
  }
  nlohmann::json golden_;
};

TEST_F(NfcTest, EveryCodePointAloneAndBehindALetter) {
  std::string all;
  for (const bool behind : {false, true}) {
    for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
      if (c >= 0xD800 && c <= 0xDFFF) continue;
      const std::string text = behind ? Utf8({'a', c}) : Utf8({c});
      const std::string composed = ToNfc(text);
      ASSERT_TRUE(!IsPlainlyNfc(text) || composed == text) << c;
      all += composed + '\n';
    }
  }
  EXPECT_EQ(Sha256Hex(all), golden_.at("every").get<std::string>());
}

// All letters of two parts, in the order of their code points.
std::vector<std::array<uint32_t, 3>> LettersOfTwoParts() {
  std::vector<std::array<uint32_t, 3>> letters;
  for (const auto table : {nfc::Composites(), nfc::Pairs()}) {
    for (size_t i = 0; i < table.size(); i += 3) {
      letters.push_back({table[i], table[i + 1], table[i + 2]});
    }
  }
  std::sort(letters.begin(), letters.end());
  return letters;
}

std::string FullyApart(uint32_t letter, const std::vector<std::array<uint32_t, 3>>& letters) {
  for (const auto& [c, first, second] : letters) {
    if (c == letter) return FullyApart(first, letters) + FullyApart(second, letters);
  }
  const auto singletons = nfc::Singletons();
  for (size_t i = 0; i < singletons.size(); i += 2) {
    if (singletons[i] == letter) return FullyApart(singletons[i + 1], letters);
  }
  return Utf8({letter});
}

TEST_F(NfcTest, LettersAndTheMarksThatMayBlockThem) {
  const auto marks = golden_.at("between").get<std::string>();
  std::vector<std::string> between;
  for (size_t at = 0; at < marks.size();) {
    const size_t bytes = NextUtf8(marks, at).bytes;
    between.push_back(marks.substr(at, bytes));
    at += bytes;
  }
  const auto letters = LettersOfTwoParts();
  EXPECT_GT(letters.size(), 1000u);
  std::string all;
  const auto add = [&all](const std::string& text) { all += ToNfc(text) + '\n'; };
  for (const auto& [letter, first, second] : letters) {
    const std::string a = Utf8({first});
    const std::string b = Utf8({second});
    for (const std::string& text : {a + b, b + a, a + a + b, a + b + b}) add(text);
    add(FullyApart(letter, letters));
    for (const std::string& mark : between) {
      add(a + mark + b);
      add(a + b + mark);
      add(Utf8({letter}) + mark);
    }
  }
  EXPECT_EQ(Sha256Hex(all), golden_.at("pairs").get<std::string>());
}

TEST_F(NfcTest, SequencesAreAsInPython) {
  int compared = 0;
  for (const auto& entry : golden_.at("sequences")) {
    const auto text = entry.at(0).get<std::string>();
    const auto wanted = entry.at(1).get<std::string>();
    EXPECT_EQ(ToNfc(text), wanted) << entry.dump(-1, ' ', true);
    EXPECT_EQ(ToNfc(wanted), wanted) << entry.dump(-1, ' ', true);
    ++compared;
  }
  EXPECT_GT(compared, 100);
}

TEST_F(NfcTest, LongTextsStayFast) {
  const std::string low = Utf8({0x323});   // class 220
  const std::string high = Utf8({0x301});  // class 230
  std::string marks = "a";
  for (int i = 0; i < 200'000; ++i) marks += i % 2 == 0 ? high : low;
  std::string hangul;
  for (int i = 0; i < 100'000; ++i) hangul += Utf8({0x1100, 0x1161, 0x11A8});
  const CpuTime spent;
  EXPECT_EQ(ToNfc(marks).size(), marks.size());  // U+1EA1 U+0301..., one byte less and one more
  EXPECT_EQ(ToNfc(hangul).size(), 300'000u);
  EXPECT_LT(spent.Seconds(), 5.0);
}

}  // namespace
}  // namespace tandem::text
