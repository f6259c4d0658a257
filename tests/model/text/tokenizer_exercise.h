// Any bytes as a vocabulary and a text: makes the tokenizer, encodes, decodes, and says what is
// wrong with the result. Shared by the fuzz target and the short test that stands in for it.
//
// The bytes: a kind, a pre-tokenizer, five ids, then lines. "t<type>SPELLING" is a token (its
// score is made of its place), "mLEFT RIGHT" a merge, and what follows the line "x" is the text.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "engine/base/error.h"
#include "engine/model/text/utf8.h"
#include "engine/model/tokenizer.h"

namespace tandem {

// Takes the next byte; 0 when there is none.
inline uint8_t TakeByte(std::string_view& bytes) {
  if (bytes.empty()) return 0;
  const auto byte = static_cast<uint8_t>(bytes.front());
  bytes.remove_prefix(1);
  return byte;
}

// The vocabulary that `bytes` describe; leaves the text.
inline VocabularyData TakeVocabulary(std::string_view& bytes) {
  static constexpr std::array<const char*, 6> kPre = {"",      "smollm", "llama-bpe",
                                                      "qwen2", "tekken", "deepseek-coder"};
  VocabularyData data;
  const uint8_t kind = TakeByte(bytes);
  data.model = (kind & 1) != 0 ? "gpt2" : "llama";
  data.pre = kPre[TakeByte(bytes) % kPre.size()];
  if ((kind & 2) != 0) data.space_prefix = static_cast<SpacePrefix>((kind >> 2) % 3);
  if ((kind & 16) != 0) data.ignore_merges = (kind & 32) != 0;
  const uint8_t bos = TakeByte(bytes);
  const uint8_t eos = TakeByte(bytes);
  const uint8_t unk = TakeByte(bytes);
  const uint8_t left = TakeByte(bytes);
  const uint8_t right = TakeByte(bytes);
  while (!bytes.empty()) {
    const size_t end = std::min(bytes.find('\n'), bytes.size());
    std::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
    if (line == "x") break;
    const char what = line.empty() ? '\0' : line.front();
    if (what == 't' && line.size() > 1) {
      data.types.push_back(line[1] - '0');
      data.tokens.emplace_back(line.substr(2));
      data.scores.push_back(static_cast<float>((data.tokens.size() * 7919) % 64));
    } else if (what == 'm') {
      data.merges.emplace_back(line.substr(1));
    }
  }
  // Now and then one that is out of range.
  const auto id = [&](uint8_t byte) {
    return static_cast<int32_t>(byte % (data.tokens.size() + 1));
  };
  if (bos < 128) data.bos = id(bos);
  if (eos < 128) data.eos = id(eos);
  if (unk < 128) data.unk = id(unk);
  if ((kind & 64) != 0) data.strip_left.push_back(id(left));
  if ((kind & 128) != 0) data.strip_right.push_back(id(right));
  return data;
}

struct Exercise {
  bool made = false;    // or refused with an Error
  std::string problem;  // "" when all is well
};

inline Exercise ExerciseTokenizer(std::string_view bytes) {
  VocabularyData data = TakeVocabulary(bytes);
  std::unique_ptr<Tokenizer> tokenizer;
  try {
    tokenizer = MakeTokenizer(std::move(data), "fuzz");
  } catch (const Error&) {
    return {};
  }
  for (const bool special : {false, true}) {
    Detokenizer out(*tokenizer, special ? TextStart::kBegins : TextStart::kContinues);
    std::string decoded;
    for (int32_t id : tokenizer->Encode(bytes, {.parse_special = special, .add_bos = special})) {
      if (id < 0 || static_cast<uint32_t>(id) >= tokenizer->vocab_size())
        return {true, "an id outside"};
      const std::string text = out.Add(id);
      if (!text::IsValidUtf8(text)) return {true, "text that is no UTF-8"};
      decoded += text;
    }
    if (!text::IsValidUtf8(out.Finish())) return {true, "an end that is no UTF-8"};
  }
  for (uint32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    tokenizer->TokenBytes(static_cast<int32_t>(id), true);
    tokenizer->IsEndOfGeneration(static_cast<int32_t>(id));
  }
  return {true, ""};
}

}  // namespace tandem
