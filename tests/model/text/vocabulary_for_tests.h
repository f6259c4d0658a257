// A hand-made vocabulary for tests that need no model: the 256 byte tokens, a few merges, and
// special tokens behind them. Ids: the byte's value for byte tokens, then as listed.
//
//   auto tok = MakeTokenizer(SmallVocabulary(), "test");
#pragma once

#include <cstdint>
#include <string>

#include "engine/model/text/byte_alphabet.h"
#include "engine/model/tokenizer.h"

namespace tandem {

inline constexpr int32_t kBosId = 262;
inline constexpr int32_t kEosId = 263;
inline constexpr int32_t kUserId = 264;
inline constexpr int32_t kLongUserId = 265;

inline VocabularyData SmallVocabulary() {
  VocabularyData data;
  data.model = "gpt2";
  data.pre = "smollm";
  for (int byte = 0; byte < 256; ++byte) {
    data.tokens.push_back(text::CharacterOfByte(static_cast<uint8_t>(byte)));
    data.types.push_back(1);
  }
  const std::string space = text::CharacterOfByte(' ');
  const auto add = [&data](const std::string& spelling, int32_t type) {
    data.tokens.push_back(spelling);
    data.types.push_back(type);
  };
  add("ab", 1);           // 256
  add("bc", 1);           // 257
  add("abc", 1);          // 258
  add(space + "a", 1);    // 259
  add(space + "abc", 1);  // 260
  add("aa", 1);           // 261
  add("<s>", 3);          // 262
  add("</s>", 3);         // 263
  add("<<", 4);           // 264
  add("<<==", 4);         // 265
  data.merges = {"b c", "a b", "a bc", space + " a", space + " abc", "a a"};
  data.bos = kBosId;
  data.eos = kEosId;
  return data;
}

}  // namespace tandem
