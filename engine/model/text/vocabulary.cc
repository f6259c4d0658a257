#include "engine/model/text/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/model/text/utf8.h"

namespace tandem::text {
namespace {

// Tokens that end an answer in the chat formats of common models, whatever the file calls EOS.
constexpr std::array<std::string_view, 12> kEndMarkers = {
    "<|im_end|>",      "<|eot_id|>",    "<|eom_id|>", "<|endoftext|>",
    "<|end_of_text|>", "</s>",          "<|end|>",    "<|return|>",
    "<|call|>",        "<end_of_turn>", "<EOT>",      "<end_of_utterance>"};

[[noreturn]] void Refuse(const std::string& source, const std::string& what) {
  Fail(ErrorCode::kModelFile, fmt::format("tokenizer: {}: {}", source, what));
}

bool HasSorted(const std::vector<int32_t>& ids, int32_t id) {
  return std::binary_search(ids.begin(), ids.end(), id);
}

}  // namespace

Vocabulary::Vocabulary(VocabularyData data, const std::string& source) : data_(std::move(data)) {
  IndexTokens(source);
  CheckNamedIds(source);
  std::sort(data_.strip_left.begin(), data_.strip_left.end());
  std::sort(data_.strip_right.begin(), data_.strip_right.end());
  IndexSpecials();
  FindEnds();
}

void Vocabulary::IndexTokens(const std::string& source) {
  const size_t count = data_.tokens.size();
  if (count == 0) Refuse(source, "the vocabulary (tokenizer.ggml.tokens) is empty");
  if (count > static_cast<size_t>(INT32_MAX)) {
    Refuse(source, fmt::format("{} tokens are too many", count));
  }
  if (!data_.types.empty() && data_.types.size() != count) {
    Refuse(source, fmt::format("{} token types for {} tokens (tokenizer.ggml.token_type)",
                               data_.types.size(), count));
  }
  if (!data_.scores.empty() && data_.scores.size() != count) {
    Refuse(source, fmt::format("{} scores for {} tokens (tokenizer.ggml.scores)",
                               data_.scores.size(), count));
  }
  for (size_t i = 0; i < data_.scores.size(); ++i) {
    if (std::isnan(data_.scores[i])) {
      Refuse(source, fmt::format("the score of token {} is not a number", i));
    }
  }
  id_of_.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const std::string& spelling = data_.tokens[i];
    if (spelling.empty()) continue;
    const auto [it, inserted] = id_of_.try_emplace(spelling, static_cast<int32_t>(i));
    if (!inserted) {
      Refuse(source, fmt::format("tokens {} and {} are both '{}'", it->second, i, spelling));
    }
    longest_spelling_ = std::max(longest_spelling_, spelling.size());
  }
}

void Vocabulary::CheckNamedIds(const std::string& source) const {
  const auto check = [&](const char* name, int32_t id) {
    if (id < 0 || id >= size()) {
      Refuse(source,
             fmt::format("the {} token's id is {}, but there are {} tokens", name, id, size()));
    }
  };
  const std::pair<const char*, std::optional<int32_t>> named[] = {
      {"bos", data_.bos}, {"eos", data_.eos},     {"eot", data_.eot},
      {"eom", data_.eom}, {"unknown", data_.unk}, {"padding", data_.pad}};
  for (const auto& [name, id] : named) {
    if (id) check(name, *id);
  }
  for (int32_t id : data_.strip_left) check("left-stripping", id);
  for (int32_t id : data_.strip_right) check("right-stripping", id);
}

void Vocabulary::IndexSpecials() {
  for (int32_t id = 0; id < size(); ++id) {
    const int32_t type = Type(id);
    if (type == kTypeUserDefined) user_defined_.Add(data_.tokens[id], id);
    if (type == kTypeUserDefined || type == kTypeControl || type == kTypeUnknown) {
      all_specials_.Add(data_.tokens[id], id);
    }
  }
}

// A marker counts only when the file gives it a special type: "</s>" is also plain HTML.
void Vocabulary::FindEnds() {
  for (const std::optional<int32_t>& end : {data_.eos, data_.eot, data_.eom}) {
    if (end) ends_.push_back(*end);
  }
  const bool harmony = IdOf("<|return|>") >= 0 && IdOf("<|call|>") >= 0;
  for (std::string_view marker : kEndMarkers) {
    const int32_t id = IdOf(marker);
    if (id < 0 || Type(id) == kTypeNormal) continue;
    // In the harmony format <|end|> ends a message, not the answer.
    if (harmony && marker == "<|end|>") continue;
    ends_.push_back(id);
  }
}

int32_t Vocabulary::IdOf(std::string_view spelling) const {
  const auto it = id_of_.find(spelling);
  return it == id_of_.end() ? -1 : it->second;
}

const std::string& Vocabulary::Spelling(int32_t id) const {
  Check(id >= 0 && id < size(), "tokenizer: token id outside the vocabulary");
  return data_.tokens[id];
}

bool Vocabulary::IsSpecial(int32_t id) const {
  Spelling(id);
  return Type(id) == kTypeControl || Type(id) == kTypeUnknown;
}

bool Vocabulary::IsEndOfGeneration(int32_t id) const {
  return std::find(ends_.begin(), ends_.end(), id) != ends_.end();
}

std::vector<Stretch> Vocabulary::Cut(std::string_view text, bool parse_special) const {
  const SpecialMatcher& specials = parse_special ? all_specials_ : user_defined_;
  std::vector<Stretch> stretches;
  const auto add_plain = [&stretches](std::string_view plain) {
    if (!plain.empty()) stretches.push_back({plain});
  };
  while (const auto match = specials.Find(text, 0)) {
    std::string_view before = text.substr(0, match->begin);
    if (HasSorted(data_.strip_left, match->id)) before = RightStripped(before);
    add_plain(before);
    stretches.push_back({text.substr(match->begin, match->size), match->id});
    text.remove_prefix(match->begin + match->size);
    if (HasSorted(data_.strip_right, match->id)) text = LeftStripped(text);
  }
  add_plain(text);
  return stretches;
}

MergeTable Vocabulary::TakeMerges(const std::string& source) {
  MergeTable table;
  table.Reserve(data_.merges.size());
  for (size_t rank = 0; rank < data_.merges.size(); ++rank) {
    const std::string_view merge = data_.merges[rank];
    // A token may itself be a space, but none is empty.
    const size_t space = merge.find(' ', 1);
    std::array<int32_t, 3> ids = {-1, -1, -1};
    if (space != std::string_view::npos && space + 1 < merge.size()) {
      const std::string left(merge.substr(0, space));
      const std::string right(merge.substr(space + 1));
      ids = {IdOf(left), IdOf(right), IdOf(left + right)};
    }
    if (std::find(ids.begin(), ids.end(), -1) != ids.end()) {
      Refuse(source, fmt::format("merge {} ('{}') must be two tokens with a space between, and "
                                 "their concatenation a token as well",
                                 rank, merge));
    }
    table.Add(ids[0], ids[1], {static_cast<int32_t>(rank), ids[2]});
  }
  data_.merges = {};
  return table;
}

void Vocabulary::PutBos(std::vector<int32_t>& ids) const {
  if (data_.bos && (ids.empty() || ids.front() != *data_.bos)) {
    ids.insert(ids.begin(), *data_.bos);
  }
}

std::optional<uint8_t> ByteOfHex(std::string_view spelling) {
  if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling[5] != '>') return {};
  int value = 0;
  for (char digit : spelling.substr(3, 2)) {
    const size_t at = std::string_view("0123456789ABCDEFabcdef").find(digit);
    if (at == std::string_view::npos) return {};
    value = value * 16 + static_cast<int>(at < 16 ? at : at - 6);
  }
  return static_cast<uint8_t>(value);
}

}  // namespace tandem::text
