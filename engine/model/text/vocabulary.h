// A vocabulary read from a model file, checked and indexed: what both kinds of tokenizer share.
// Finds tokens by spelling, cuts text at the special tokens in it, knows which tokens end an
// answer.
//
// Built once, then immutable; any thread may use it.
//
//   Vocabulary vocabulary(std::move(data), "model.gguf");
//   for (const Stretch& s : vocabulary.Cut(text, true)) s.id >= 0 ? token : plain text s.text;
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/model/text/bpe.h"
#include "engine/model/text/special_matcher.h"
#include "engine/model/tokenizer.h"

namespace tandem::text {

// ggml's token types.
inline constexpr int32_t kTypeNormal = 1;
inline constexpr int32_t kTypeUnknown = 2;
inline constexpr int32_t kTypeControl = 3;
inline constexpr int32_t kTypeUserDefined = 4;
inline constexpr int32_t kTypeUnused = 5;
inline constexpr int32_t kTypeByte = 6;

// A part of a text: a special token that is spelled out in it, or plain text.
struct Stretch {
  std::string_view text;  // never empty when id < 0
  int32_t id = -1;
};

class Vocabulary {
 public:
  // Throws as MakeTokenizer does.
  Vocabulary(VocabularyData data, const std::string& source);
  // The index refers to the spellings where they lie.
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  const VocabularyData& data() const { return data_; }
  int32_t size() const { return static_cast<int32_t>(data_.tokens.size()); }
  // -1 when no token is spelled so.
  int32_t IdOf(std::string_view spelling) const;
  int32_t Type(int32_t id) const { return data_.types.empty() ? kTypeNormal : data_.types[id]; }
  // An id outside the vocabulary is a bug of the caller.
  const std::string& Spelling(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  bool IsEndOfGeneration(int32_t id) const;
  size_t longest_spelling() const { return longest_spelling_; }

  // `text`, valid UTF-8, cut at user-defined tokens, and with parse_special at control and unknown
  // ones too. White space that a token takes with it belongs to no stretch.
  std::vector<Stretch> Cut(std::string_view text, bool parse_special) const;

  // The merges as rules on ids, dropped from data(). Throws Error(kModelFile) for a merge that is
  // not "left right".
  MergeTable TakeMerges(const std::string& source);

  // BOS first, when there is one and `ids` do not begin with it.
  void PutBos(std::vector<int32_t>& ids) const;

 private:
  void IndexTokens(const std::string& source);
  void CheckNamedIds(const std::string& source) const;
  void IndexSpecials();
  void FindEnds();

  VocabularyData data_;
  std::unordered_map<std::string_view, int32_t> id_of_;  // by spelling
  size_t longest_spelling_ = 0;
  SpecialMatcher all_specials_;
  SpecialMatcher user_defined_;
  std::vector<int32_t> ends_;
};

// The byte that a byte token stands for: 10 for "<0x0A>".
std::optional<uint8_t> ByteOfHex(std::string_view spelling);

}  // namespace tandem::text
