#include "engine/model/text/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/base/error.h"

namespace tandem::text {
namespace {

using testing::ElementsAre;

TEST(PreTokenizerTest, CutsDigitsOneByOneForSmollm) {
  const auto pre = PreTokenizer::Make("smollm", "test");
  EXPECT_THAT(pre->Split("abc 42 it's"), ElementsAre("abc", " ", "4", "2", " it", "'s"));
}

// A look-ahead must not see past the piece: the two spaces end theirs, so they stay together.
TEST(PreTokenizerTest, ExpressionsSeeOnlyTheirPiece) {
  EXPECT_THAT(PreTokenizer::Make("smollm", "test")->Split("a  1"), ElementsAre("a", "  ", "1"));
  EXPECT_THAT(PreTokenizer::Make("gpt-2", "test")->Split("a  1"), ElementsAre("a", " ", " 1"));
}

TEST(PreTokenizerTest, AMissingNameIsTheDefault) {
  const std::string text = "a-b 12345";
  EXPECT_EQ(PreTokenizer::Make("", "test")->Split(text),
            PreTokenizer::Make("default", "test")->Split(text));
}

// U+180E was a space before Unicode 6.3, and PCRE2 still takes it for one.
TEST(PreTokenizerTest, SpacesAreUnicodeWhiteSpace) {
  const auto pre = PreTokenizer::Make("gpt-2", "test");
  EXPECT_THAT(pre->Split("\xE1\xA0\x8E\xE1\xA0\x8Ex"),
              ElementsAre("\xE1\xA0\x8E\xE1\xA0\x8E", "x"));
  EXPECT_THAT(pre->Split("\xE3\x80\x80\xE3\x80\x80x"),
              ElementsAre("\xE3\x80\x80", "\xE3\x80\x80", "x"));
}

TEST(PreTokenizerTest, NamesWhatItDoesNotKnow) {
  try {
    PreTokenizer::Make("superbpe", "some.gguf");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.what(), testing::HasSubstr("'superbpe'"));
    EXPECT_THAT(error.what(), testing::HasSubstr("some.gguf"));
  }
}

TEST(PreTokenizerTest, IsKnownByTheExpressionsOfATokenizerJson) {
  const std::string llama3 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
                             R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  EXPECT_EQ(PreTokenizerNamed({llama3}), "llama-bpe");
  std::string with_breaks = llama3;
  for (size_t at; (at = with_breaks.find("\\r\\n")) != std::string::npos;) {
    with_breaks.replace(at, 4, "\r\n");
  }
  EXPECT_EQ(PreTokenizerNamed({with_breaks}), "llama-bpe");
  std::string qwen2 = llama3;
  qwen2.erase(qwen2.find("{1,3}"), 5);
  EXPECT_EQ(PreTokenizerNamed({qwen2}), "qwen2");
  EXPECT_EQ(PreTokenizerNamed({"ByteLevel"}), "gpt-2");
  EXPECT_EQ(PreTokenizerNamed({R"(\p{N})", "ByteLevel"}), "smollm");
  EXPECT_EQ(PreTokenizerNamed({qwen2, "ByteLevel"}), std::nullopt);
  EXPECT_EQ(PreTokenizerNamed({}), std::nullopt);
}

// The words that the models' own tokenizers cut (tools/make-tokenizer-golden).
TEST(PreTokenizerTest, EqualsTheGoldenWords) {
  std::ifstream file("tests/golden/tokenizer/pre_tokenizers.jsonl");
  ASSERT_TRUE(file) << "run from the repository's root";
  std::map<std::string, std::unique_ptr<const PreTokenizer>> by_name;
  int cases = 0;
  for (std::string line; std::getline(file, line); ++cases) {
    const nlohmann::json golden = nlohmann::json::parse(line);
    const auto name = golden.at("pre").get<std::string>();
    auto& pre = by_name[name];
    if (!pre) pre = PreTokenizer::Make(name, "test");
    const auto text = golden.at("text").get<std::string>();
    std::vector<std::string> pieces;
    for (std::string_view piece : pre->Split(text)) pieces.emplace_back(piece);
    EXPECT_EQ(nlohmann::json(pieces), golden.at("pieces")) << line;
  }
  EXPECT_GT(cases, 1000);
}

}  // namespace
}  // namespace tandem::text
