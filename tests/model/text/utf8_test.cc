#include "engine/model/text/utf8.h"

#include <gtest/gtest.h>

#include "engine/model/text/byte_alphabet.h"

namespace tandem::text {
namespace {

using namespace std::string_literals;

TEST(Utf8Test, RoundTripsEveryCodePoint) {
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string encoded;
    AppendUtf8(c, encoded);
    const Utf8Step step = NextUtf8(encoded, 0);
    ASSERT_EQ(step.kind, Utf8Kind::kValid) << c;
    ASSERT_EQ(step.code_point, c);
    ASSERT_EQ(step.bytes, encoded.size());
  }
}

// The table of the Unicode standard, section 3.9 ("U+FFFD Substitution of Maximal Subparts").
TEST(Utf8Test, ReplacesMaximalSubparts) {
  const std::string r(kReplacementUtf8);
  EXPECT_EQ(ReplaceInvalidUtf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(ReplaceInvalidUtf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"),
            r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(ReplaceInvalidUtf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"),
            r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(ReplaceInvalidUtf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
}

TEST(Utf8Test, TellsTruncatedFromInvalid) {
  EXPECT_EQ(NextUtf8("\xE2\x82", 0).kind, Utf8Kind::kTruncated);
  EXPECT_EQ(NextUtf8("\xE2\x82", 0).bytes, 2u);
  EXPECT_EQ(NextUtf8("\xE2\x28", 0).kind, Utf8Kind::kInvalid);
  EXPECT_EQ(NextUtf8("\xF5", 0).kind, Utf8Kind::kInvalid);
}

TEST(ByteAlphabetTest, EveryByteSurvives) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string& character = CharacterOfByte(static_cast<uint8_t>(byte));
    EXPECT_TRUE(IsValidUtf8(character));
    EXPECT_EQ(BytesOfSpelling(character), std::string(1, static_cast<char>(byte)));
  }
  EXPECT_EQ(CharacterOfByte(' '), "\xC4\xA0");   // U+0120
  EXPECT_EQ(CharacterOfByte('\n'), "\xC4\x8A");  // U+010A
  EXPECT_EQ(CharacterOfByte(0xAD), "\xC5\x83");  // U+0143, the last of the borrowed
}

TEST(ByteAlphabetTest, KeepsCharactersOutsideTheAlphabet) {
  EXPECT_EQ(BytesOfSpelling("a b\xE2\x82\xAC"), "a b\xE2\x82\xAC");
}

}  // namespace
}  // namespace tandem::text
