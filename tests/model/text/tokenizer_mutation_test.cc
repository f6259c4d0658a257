// Thousands of small random vocabularies and texts, the same ones every time: each is refused with
// an Error or encodes and decodes. tests/fuzz/tokenizer_fuzz.cc goes on where this stops.

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/model/text/tokenizer_exercise.h"

namespace tandem {
namespace {

constexpr int kRounds = 20'000;

// Letters from a small alphabet, so that pieces and text meet; now and then any byte.
std::string RandomText(std::mt19937& random, size_t longest) {
  static constexpr const char* kAlphabet[] = {"a", "b", "ab", " ", "\xE2\x96\x81", "\xC4\xA0",
                                              "1", "<", ">",  "s", "\xC3\xA9",     "\xF0\x9F"};
  std::string text;
  for (size_t n = random() % (longest + 1); n > 0; --n) {
    if (random() % 40 == 0) {
      text += static_cast<char>(random() % 256);
    } else {
      text += kAlphabet[random() % std::size(kAlphabet)];
    }
  }
  return text;
}

// Mostly sound: no spelling twice, merges of tokens that are there.
std::string RandomVocabulary(std::mt19937& random) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string lines;
  std::vector<std::string> spellings;
  const auto add = [&](char type, const std::string& spelling) {
    const bool twice = std::find(spellings.begin(), spellings.end(), spelling) != spellings.end();
    if (twice && random() % 50 != 0) return;
    spellings.push_back(spelling);
    lines += std::string("t") + type + spelling + "\n";
  };
  for (size_t n = random() % 24; n > 0; --n) {
    const char type = "1111111123456"[random() % 13];
    if (type == '6') {
      add(type, std::string("<0x") + kHex[random() % 16] + kHex[random() % 16] + ">");
    } else {
      add(type, RandomText(random, 4));
    }
  }
  for (size_t n = spellings.empty() ? 0 : random() % 6; n > 0; --n) {
    const std::string left = spellings[random() % spellings.size()];
    const std::string right = spellings[random() % spellings.size()];
    add('1', left + right);
    lines += "m" + left + " " + right + "\n";
  }
  return lines;
}

TEST(TokenizerMutationTest, AnyVocabularyIsRefusedOrWorks) {
  std::mt19937 random(20'240'229);
  int made = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::string bytes;
    for (int i = 0; i < 7; ++i) bytes += static_cast<char>(random() % 256);
    bytes += RandomVocabulary(random) + "x\n" + RandomText(random, 60);
    const Exercise exercise = ExerciseTokenizer(bytes);
    ASSERT_EQ(exercise.problem, "") << "round " << round;
    made += exercise.made ? 1 : 0;
  }
  EXPECT_GT(made, kRounds / 10) << "too few vocabularies came to be used";
  EXPECT_LT(made, kRounds) << "none was refused";
}

}  // namespace
}  // namespace tandem
