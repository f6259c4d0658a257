// Stop strings over token borders, and text that never ends inside a code point.
#include "engine/run/text_stream.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

// Token i is the i-th piece.
class PieceTokenizer final : public Tokenizer {
 public:
  explicit PieceTokenizer(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
  uint32_t vocab_size() const override { return static_cast<uint32_t>(pieces_.size()); }
  std::vector<int32_t> Encode(std::string_view, const EncodeOptions&) const override { return {}; }
  std::string TokenBytes(int32_t id, bool) const override {
    return pieces_[static_cast<size_t>(id)];
  }
  std::string TokenText(int32_t id) const override { return TokenBytes(id, false); }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::optional<int32_t> eos() const override { return std::nullopt; }
  bool IsEndOfGeneration(int32_t) const override { return false; }
  bool IsSpecial(int32_t) const override { return false; }
  bool adds_bos() const override { return false; }

 private:
  std::vector<std::string> pieces_;
};

struct Said {
  std::vector<std::string> pieces;  // as they came, the rest at the end last
  std::string all;
  bool stopped = false;
};

Said Say(std::vector<std::string> pieces, std::vector<std::string> stops) {
  const size_t n = pieces.size();
  const PieceTokenizer tokenizer(std::move(pieces));
  TextStream stream(tokenizer, std::move(stops));
  Said said;
  for (size_t i = 0; i < n && !stream.stopped(); ++i) {
    said.pieces.push_back(stream.Add(static_cast<int32_t>(i)));
  }
  said.pieces.push_back(stream.Finish());
  for (const std::string& piece : said.pieces) said.all += piece;
  said.stopped = stream.stopped();
  return said;
}

TEST(TextStreamTest, PassesTextOnAsItComes) {
  const Said said = Say({"Hel", "lo", " you"}, {});
  EXPECT_EQ(said.pieces, (std::vector<std::string>{"Hel", "lo", " you", ""}));
}

TEST(TextStreamTest, StopStringsMaySpanTokens) {
  const Said said = Say({"one", "\n", "\n", "two"}, {"\n\n"});
  EXPECT_TRUE(said.stopped);
  EXPECT_EQ(said.all, "one");
}

TEST(TextStreamTest, NoPartOfAStopStringIsEverShown) {
  for (const char* stop : {"STOP", "TOPS", "abSTOPcd"}) {
    const Said said = Say({"a", "b", "S", "T", "O", "P", "c", "d"}, {stop});
    const std::string text = "abSTOPcd";
    const size_t at = text.find(stop);
    EXPECT_EQ(said.stopped, at != std::string::npos) << stop;
    EXPECT_EQ(said.all, at == std::string::npos ? text : text.substr(0, at)) << stop;
  }
}

TEST(TextStreamTest, WhatOnlyLookedLikeAStopIsGivenBack) {
  const Said said = Say({"x", "<", "e", "n", "x"}, {"<end>"});
  EXPECT_FALSE(said.stopped);
  EXPECT_EQ(said.all, "x<enx");
  EXPECT_EQ(said.pieces[1], "") << "held back";
  EXPECT_EQ(Say({"x", "<en"}, {"<end>"}).all, "x<en") << "and at the end";
}

TEST(TextStreamTest, TheEarliestStopWins) {
  EXPECT_EQ(Say({"hello world"}, {"world", "lo"}).all, "hel");
  EXPECT_EQ(Say({"aab"}, {"ab"}).all, "a");
  EXPECT_EQ(Say({"a", "a", "b"}, {"ab"}).all, "a");
}

TEST(TextStreamTest, NeverSplitsACodePoint) {
  const Said said = Say({"\xf0\x9f", "\x98", "\x80", "!"}, {});
  EXPECT_EQ(said.pieces, (std::vector<std::string>{"", "", "\xf0\x9f\x98\x80", "!", ""}));
}

TEST(TextStreamTest, EmptyStopsStopNothing) {
  const Said said = Say({"a", "b"}, {""});
  EXPECT_EQ(said.all, "ab");
  EXPECT_FALSE(said.stopped);
}

}  // namespace
}  // namespace tandem
