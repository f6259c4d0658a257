#include "engine/model/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <random>

#include "engine/base/error.h"
#include "engine/model/text/bpe.h"
#include "engine/model/text/utf8.h"
#include "tests/model/text/cpu_time.h"
#include "tests/model/text/vocabulary_for_tests.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string Decode(const Tokenizer& tok, const std::vector<int32_t>& ids) {
  Detokenizer out(tok);
  std::string decoded;
  for (int32_t id : ids) decoded += out.Add(id);
  return decoded + out.Finish();
}

// The error that making a tokenizer of `data` gives, as "code: message"; "" when there is none.
std::string ErrorOf(VocabularyData data) {
  try {
    MakeTokenizer(std::move(data), "some.gguf");
  } catch (const Error& error) {
    return std::string(ToString(error.code())) + ": " + error.what();
  }
  return "";
}

TEST(TokenizerTest, MergesByRankThenFromTheLeft) {
  const auto tok = MakeTokenizer(SmallVocabulary(), "test");
  // "b c" ranks before "a b", so abc is a+bc and then abc; ab alone merges by the second rule.
  EXPECT_THAT(tok->Encode("abc", {}), ElementsAre(258));
  EXPECT_THAT(tok->Encode("abab", {}), ElementsAre(256, 256));
  EXPECT_THAT(tok->Encode("x abc a", {}), ElementsAre('x', 260, 259));
  EXPECT_THAT(tok->Encode("aaa", {}), ElementsAre(261, 'a'));
}

TEST(TokenizerTest, ComposesPlainTextWhereTheVocabularyOrThePreTokenizerSaysSo) {
  VocabularyData data = SmallVocabulary();
  data.tokens.back() = "<e\xCC\x81>";  // a token in the text stands as it is spelled
  const std::string apart = "e\xCC\x81";
  const auto ids = [&](VocabularyData vocabulary) {
    return MakeTokenizer(std::move(vocabulary), "test")->Encode(apart + "<" + apart + ">", {});
  };
  EXPECT_THAT(ids(data), ElementsAre('e', 0xCC, 0x81, kLongUserId));
  data.composes = true;
  EXPECT_THAT(ids(data), ElementsAre(0xC3, 0xA9, kLongUserId));
  data.composes.reset();
  data.pre = "qwen2";
  EXPECT_THAT(ids(data), ElementsAre(0xC3, 0xA9, kLongUserId));
  for (const char* pre : {"deepseek-r1-qwen", "qwen35"}) {
    data.pre = pre;
    EXPECT_THAT(ids(data), ElementsAre('e', 0xCC, 0x81, kLongUserId)) << pre;
  }
  data.pre = "qwen2";
  data.composes = false;
  EXPECT_THAT(ids(data), ElementsAre('e', 0xCC, 0x81, kLongUserId));
}

TEST(TokenizerTest, DigitsStandAlone) {
  const auto tok = MakeTokenizer(SmallVocabulary(), "test");
  EXPECT_THAT(tok->Encode("ab12", {}), ElementsAre(256, '1', '2'));
}

TEST(TokenizerTest, EncodesNothingToNothing) {
  const auto tok = MakeTokenizer(SmallVocabulary(), "test");
  EXPECT_TRUE(tok->Encode("", {}).empty());
  EXPECT_THAT(tok->Encode("", {.add_bos = true}), ElementsAre(kBosId));
}

TEST(TokenizerTest, ParsesControlTokensOnlyWhenAsked) {
  const auto tok = MakeTokenizer(SmallVocabulary(), "test");
  EXPECT_THAT(tok->Encode("ab<s>ab</s>", {.parse_special = true}),
              ElementsAre(256, kBosId, 256, kEosId));
  EXPECT_THAT(tok->Encode("<s>", {}), ElementsAre('<', 's', '>'));
}

TEST(TokenizerTest, UserDefinedTokensAlwaysMatchLongestFirst) {
  const auto tok = MakeTokenizer(SmallVocabulary(), "test");
  EXPECT_THAT(tok->Encode("a<<b", {}), ElementsAre('a', kUserId, 'b'));
  EXPECT_THAT(tok->Encode("<<==", {}), ElementsAre(kLongUserId));
  EXPECT_THAT(tok->Encode("<<=", {}), ElementsAre(kUserId, '='));
  EXPECT_EQ(tok->TokenBytes(kUserId), "<<");
}

TEST(TokenizerTest, RendersSpecialTokensOnRequestOnly) {
  const auto tok = MakeTokenizer(SmallVocabulary(), "test");
  EXPECT_EQ(tok->TokenBytes(kBosId), "");
  EXPECT_EQ(tok->TokenBytes(kBosId, true), "<s>");
  EXPECT_EQ(tok->TokenText(kBosId), "<s>");
  EXPECT_TRUE(tok->IsSpecial(kBosId));
  EXPECT_FALSE(tok->IsSpecial(kUserId));
  EXPECT_EQ(tok->TokenBytes(260), " abc");
}

TEST(TokenizerTest, RoundTripsAnyBytesAsPythonWouldReadThem) {
  const auto tok = MakeTokenizer(SmallVocabulary(), "test");
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    for (int i = 0; i < 40; ++i) bytes.push_back(static_cast<char>(random() % 256));
    const std::string once = Decode(*tok, tok->Encode(bytes, {}));
    EXPECT_EQ(Decode(*tok, tok->Encode(once, {})), once);
  }
}

TEST(TokenizerTest, InvalidUtf8BecomesTheReplacementCharacter) {
  const auto tok = MakeTokenizer(SmallVocabulary(), "test");
  EXPECT_THAT(tok->Encode("a\xFF", {}), ElementsAre('a', 0xEF, 0xBF, 0xBD));
}

TEST(TokenizerTest, KeepsNulBytes) {
  const auto tok = MakeTokenizer(SmallVocabulary(), "test");
  EXPECT_THAT(tok->Encode(std::string_view("a\0b", 3), {}), ElementsAre('a', 0, 'b'));
}

TEST(TokenizerTest, LeavesOutBytesThatTheVocabularyLacks) {
  VocabularyData data = SmallVocabulary();
  data.tokens[0x13] = "not-a-byte";
  const auto tok = MakeTokenizer(std::move(data), "test");
  EXPECT_THAT(tok->Encode("a\x13z", {}), ElementsAre('a', 'z'));
}

TEST(TokenizerTest, EndsAreEosEotAndKnownMarkers) {
  VocabularyData data = SmallVocabulary();
  data.tokens.insert(data.tokens.end(), {"<|im_end|>", "<|eot_id|>", "</S>", "<|end|>"});
  data.types.insert(data.types.end(), {3, 1, 3, 4});
  data.eot = 'e';
  const auto tok = MakeTokenizer(std::move(data), "test");
  EXPECT_TRUE(tok->IsEndOfGeneration(kEosId));
  EXPECT_TRUE(tok->IsEndOfGeneration('e'));
  EXPECT_TRUE(tok->IsEndOfGeneration(266));
  EXPECT_FALSE(tok->IsEndOfGeneration(267)) << "of normal type: text like any other";
  EXPECT_FALSE(tok->IsEndOfGeneration(268));
  EXPECT_TRUE(tok->IsEndOfGeneration(269));
  EXPECT_FALSE(tok->IsEndOfGeneration(kBosId));
}

TEST(TokenizerTest, BosFollowsTheFileThenThePreTokenizer) {
  VocabularyData data = SmallVocabulary();
  EXPECT_FALSE(MakeTokenizer(data, "test")->adds_bos());
  data.add_bos = true;
  EXPECT_TRUE(MakeTokenizer(data, "test")->adds_bos());
  data.pre = "llama-bpe";
  data.add_bos = std::nullopt;
  EXPECT_TRUE(MakeTokenizer(data, "test")->adds_bos());
  data.add_bos = false;
  EXPECT_FALSE(MakeTokenizer(data, "test")->adds_bos());
  data.add_bos = true;
  data.bos = std::nullopt;
  EXPECT_FALSE(MakeTokenizer(data, "test")->adds_bos());
}

TEST(TokenizerTest, WholeWordsSkipTheMergesWhereThePreTokenizerSaysSo) {
  VocabularyData data = SmallVocabulary();
  data.tokens.insert(data.tokens.end(), {"zap", "zip"});
  data.types.insert(data.types.end(), {1, 3});
  EXPECT_THAT(MakeTokenizer(data, "test")->Encode("zap", {}), ElementsAre('z', 'a', 'p'));
  data.pre = "llama-bpe";
  EXPECT_THAT(MakeTokenizer(data, "test")->Encode("zap", {}), ElementsAre(266));
  EXPECT_THAT(MakeTokenizer(data, "test")->Encode("zip", {}), ElementsAre('z', 'i', 'p'))
      << "a control token must not come out of plain text";
}

// Ids without a spelling, as padding leaves them, and bytes that no token stands for.
TEST(TokenizerTest, HolesAreNeverMatched) {
  VocabularyData data = SmallVocabulary();
  const auto hole = static_cast<int32_t>(data.tokens.size());
  for (int i = 0; i < 3; ++i) {
    data.tokens.push_back("");
    data.types.push_back(i == 0 ? 1 : 3 + i);
  }
  data.tokens['x'] = "";
  const auto tok = MakeTokenizer(data, "test");
  EXPECT_EQ(tok->vocab_size(), 269u);
  EXPECT_THAT(tok->Encode("abxab", {.parse_special = true}), ElementsAre(256, 256));
  EXPECT_THAT(tok->Encode("x", {.parse_special = true}), ElementsAre());
  for (int32_t id : {int32_t{'x'}, hole, hole + 1, hole + 2}) {
    EXPECT_EQ(tok->TokenBytes(id, true), "");
    EXPECT_EQ(tok->TokenText(id), "");
  }
  data.tokens.assign(data.tokens.size(), "");
  data.merges.clear();
  EXPECT_TRUE(MakeTokenizer(data, "test")->Encode("abc <s>", {.parse_special = true}).empty());
}

TEST(TokenizerTest, ByteTypedTokensAreBytes) {
  VocabularyData data = SmallVocabulary();
  data.tokens.push_back("<0xe2>");
  data.types.push_back(6);
  EXPECT_EQ(MakeTokenizer(std::move(data), "test")->TokenBytes(266), "\xE2");
}

TEST(TokenizerTest, RefusesVocabulariesThatContradictThemselves) {
  EXPECT_EQ(ErrorOf(SmallVocabulary()), "");
  VocabularyData data = SmallVocabulary();
  data.tokens[5] = data.tokens[6];
  EXPECT_THAT(ErrorOf(data), testing::AllOf(HasSubstr("model-file: "), HasSubstr("some.gguf"),
                                            HasSubstr("tokens 5 and 6")));
  data = SmallVocabulary();
  data.merges.push_back("q q");
  EXPECT_THAT(ErrorOf(data), HasSubstr("merge 6 ('q q')"));
  for (const char* merge : {"", " ", "ab", "ab ", " ab", "a  b", "a b c"}) {
    data = SmallVocabulary();
    data.merges.push_back(merge);
    EXPECT_THAT(ErrorOf(data), HasSubstr("model-file: ")) << '"' << merge << '"';
  }
  data = SmallVocabulary();
  data.types.pop_back();
  EXPECT_THAT(ErrorOf(data), HasSubstr("265 token types for 266 tokens"));
  data = SmallVocabulary();
  data.eot = 266;
  EXPECT_THAT(ErrorOf(data), HasSubstr("the eot token's id is 266"));
  data = SmallVocabulary();
  data.bos = -1;
  EXPECT_THAT(ErrorOf(data), HasSubstr("the bos token's id is -1"));
  data = SmallVocabulary();
  data.tokens.clear();
  data.types.clear();
  EXPECT_THAT(ErrorOf(data), HasSubstr("is empty"));
}

TEST(TokenizerTest, NamesWhatItDoesNotKnow) {
  VocabularyData data = SmallVocabulary();
  data.model = "bert";
  EXPECT_THAT(ErrorOf(data), testing::AllOf(HasSubstr("unsupported: "), HasSubstr("'bert'")));
  data = SmallVocabulary();
  data.pre = "smolm";
  EXPECT_THAT(ErrorOf(data), testing::AllOf(HasSubstr("unsupported: "), HasSubstr("'smolm'"),
                                            HasSubstr("did you mean 'smollm'")));
}

// Quadratic work on one word of 200,000 characters would take minutes.
TEST(TokenizerTest, LongWordsStayFast) {
  const auto tok = MakeTokenizer(SmallVocabulary(), "test");
  const CpuTime spent;
  for (const char* unit : {"a", "abc", " ", "\n", "!", "<", "1", "\xE4\xB8\x96"}) {
    std::string word;
    while (word.size() < 200'000) word += unit;
    EXPECT_EQ(Decode(*tok, tok->Encode(word, {.parse_special = true})), word) << unit;
  }
  EXPECT_LT(spent.Seconds(), 20.0);
}

TEST(DetokenizerTest, NeverEndsInsideACodePoint) {
  const auto tok = MakeTokenizer(SmallVocabulary(), "test");
  Detokenizer out(*tok);
  EXPECT_EQ(out.Add('x'), "x");
  EXPECT_EQ(out.Add(0xF0), "");
  EXPECT_EQ(out.Add(0x9F), "");
  EXPECT_EQ(out.Add(kBosId), "");
  EXPECT_EQ(out.Add(0x98), "");
  EXPECT_EQ(out.Add(0x80), "\xF0\x9F\x98\x80");
  EXPECT_EQ(out.Finish(), "");
}

TEST(DetokenizerTest, InvalidBytesBecomeReplacementCharacters) {
  const auto tok = MakeTokenizer(SmallVocabulary(), "test");
  Detokenizer out(*tok);
  EXPECT_EQ(out.Add(0xE2), "");
  EXPECT_EQ(out.Add('x'), "\xEF\xBF\xBDx");
  EXPECT_EQ(out.Add(0xFF), "\xEF\xBF\xBD");
  EXPECT_EQ(out.Add(0xE2), "");
  EXPECT_EQ(out.Finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(out.Finish(), "");
}

// However the bytes fall into tokens, the text is the one that decoding them at once gives.
TEST(DetokenizerTest, EqualsDecodingAtOnce) {
  const auto tok = MakeTokenizer(SmallVocabulary(), "test");
  std::mt19937 random(11);
  const uint8_t hard[] = {'a', 0x80, 0xBF, 0xC2, 0xE0, 0xA0, 0xED, 0xEF, 0xF0, 0x90, 0xF4, 0xF8};
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    std::vector<int32_t> ids;
    for (int i = 0; i < 12; ++i) {
      ids.push_back(hard[random() % std::size(hard)]);
      bytes.push_back(static_cast<char>(ids.back()));
    }
    EXPECT_EQ(Decode(*tok, ids), text::ReplaceInvalidUtf8(bytes));
  }
}

// Merging by scanning all pairs for the lowest rank, again and again.
std::vector<int32_t> NaiveMerge(std::vector<int32_t> symbols,
                                const std::vector<std::array<int32_t, 3>>& rules) {
  while (true) {
    size_t best_rule = rules.size();
    size_t best_at = 0;
    for (size_t at = 0; at + 1 < symbols.size(); ++at) {
      for (size_t rule = 0; rule < best_rule; ++rule) {
        if (symbols[at] == rules[rule][0] && symbols[at + 1] == rules[rule][1]) {
          best_rule = rule;
          best_at = at;
        }
      }
    }
    if (best_rule == rules.size()) return symbols;
    symbols[best_at] = rules[best_rule][2];
    symbols.erase(symbols.begin() + static_cast<int64_t>(best_at) + 1);
  }
}

TEST(MergeTableTest, EqualsTheNaiveMerge) {
  std::mt19937 random(3);
  for (int round = 0; round < 400; ++round) {
    text::MergeTable table;
    std::vector<std::array<int32_t, 3>> rules;
    for (int32_t merged = 4; merged < 20; ++merged) {
      const auto left = static_cast<int32_t>(random() % static_cast<uint32_t>(merged));
      const auto right = static_cast<int32_t>(random() % static_cast<uint32_t>(merged));
      const auto rank = static_cast<int32_t>(rules.size());
      if (table.Add(left, right, {rank, merged})) rules.push_back({left, right, merged});
    }
    std::vector<int32_t> symbols;
    for (int i = 0; i < 60; ++i) symbols.push_back(static_cast<int32_t>(random() % 5) - 1);
    std::vector<int32_t> merged = symbols;
    table.Merge(merged);
    EXPECT_EQ(merged, NaiveMerge(symbols, rules));
  }
}

}  // namespace
}  // namespace tandem
