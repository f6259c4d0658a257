// Byte-level BPE over a vocabulary read from a model file.

#include "engine/model/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/model/text/bpe.h"
#include "engine/model/text/byte_alphabet.h"
#include "engine/model/text/pre_tokenizer.h"
#include "engine/model/text/special_matcher.h"
#include "engine/model/text/utf8.h"

namespace tandem {
namespace {

// ggml's token types.
constexpr int32_t kTypeNormal = 1;
constexpr int32_t kTypeUnknown = 2;
constexpr int32_t kTypeControl = 3;
constexpr int32_t kTypeUserDefined = 4;
constexpr int32_t kTypeByte = 6;

// Tokens that end an answer in the chat formats of common models, whatever the file calls EOS.
constexpr std::array<std::string_view, 12> kEndMarkers = {
    "<|im_end|>",      "<|eot_id|>",    "<|eom_id|>", "<|endoftext|>",
    "<|end_of_text|>", "</s>",          "<|end|>",    "<|return|>",
    "<|call|>",        "<end_of_turn>", "<EOT>",      "<end_of_utterance>"};

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(VocabularyData data, const std::string& source)
      : data_(std::move(data)), pre_(text::PreTokenizer::Make(data_.pre, source)) {
    IndexTokens(source);
    IndexMerges(source);
    IndexSpecials();
    FindEnds();
    adds_bos_ = data_.bos && data_.add_bos.value_or(pre_->adds_bos_by_default());
  }

  uint32_t vocab_size() const override { return static_cast<uint32_t>(data_.tokens.size()); }

  std::vector<int32_t> Encode(std::string_view input, const EncodeOptions& options) const override {
    std::vector<int32_t> ids;
    if (options.add_bos && data_.bos) ids.push_back(*data_.bos);
    std::string repaired;
    if (!text::IsValidUtf8(input)) {
      repaired = text::ReplaceInvalidUtf8(input);
      input = repaired;
    }
    const text::SpecialMatcher& specials = options.parse_special ? all_specials_ : user_defined_;
    size_t at = 0;
    while (const auto match = specials.Find(input, at)) {
      EncodePlain(input.substr(at, match->begin - at), ids);
      ids.push_back(match->id);
      at = match->begin + match->size;
    }
    EncodePlain(input.substr(at), ids);
    return ids;
  }

  std::string TokenBytes(int32_t id, bool render_special) const override {
    const std::string& spelling = Spelling(id);
    switch (Type(id)) {
      case kTypeControl:
      case kTypeUnknown:
        return render_special ? spelling : "";
      case kTypeUserDefined:
        return spelling;
      case kTypeByte:
        return ByteOfHex(spelling).value_or(spelling);
      default:
        return text::BytesOfSpelling(spelling);
    }
  }

  std::string TokenText(int32_t id) const override { return Spelling(id); }

  std::optional<int32_t> bos() const override { return data_.bos; }
  std::optional<int32_t> eos() const override { return data_.eos; }
  bool IsEndOfGeneration(int32_t id) const override {
    return std::find(ends_.begin(), ends_.end(), id) != ends_.end();
  }
  bool IsSpecial(int32_t id) const override {
    Spelling(id);
    return Type(id) == kTypeControl || Type(id) == kTypeUnknown;
  }
  bool adds_bos() const override { return adds_bos_; }

 private:
  void IndexTokens(const std::string& source) {
    const size_t count = data_.tokens.size();
    const auto bad = [&source](const std::string& what) {
      Fail(ErrorCode::kModelFile, fmt::format("tokenizer: {}: {}", source, what));
    };
    if (count == 0) bad("the vocabulary (tokenizer.ggml.tokens) is empty");
    if (count > static_cast<size_t>(INT32_MAX)) bad(fmt::format("{} tokens are too many", count));
    if (!data_.types.empty() && data_.types.size() != count) {
      bad(fmt::format("{} token types for {} tokens (tokenizer.ggml.token_type)",
                      data_.types.size(), count));
    }
    id_of_.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      const auto [it, inserted] = id_of_.try_emplace(data_.tokens[i], static_cast<int32_t>(i));
      if (!inserted) {
        bad(fmt::format("tokens {} and {} are both '{}'", it->second, i, data_.tokens[i]));
      }
    }
    const std::pair<const char*, std::optional<int32_t>> named[] = {{"bos", data_.bos},
                                                                    {"eos", data_.eos},
                                                                    {"eot", data_.eot},
                                                                    {"unknown", data_.unk},
                                                                    {"padding", data_.pad}};
    for (const auto& [name, id] : named) {
      if (id && (*id < 0 || static_cast<size_t>(*id) >= count)) {
        bad(fmt::format("the {} token's id is {}, but there are {} tokens", name, *id, count));
      }
    }
    for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
      const auto it = id_of_.find(text::CharacterOfByte(static_cast<uint8_t>(byte)));
      byte_ids_[byte] = it == id_of_.end() ? -1 : it->second;
    }
  }

  void IndexMerges(const std::string& source) {
    merges_.Reserve(data_.merges.size());
    for (size_t rank = 0; rank < data_.merges.size(); ++rank) {
      const std::string& merge = data_.merges[rank];
      // A token may itself be a space, but none is empty.
      const size_t space = merge.find(' ', 1);
      std::array<int32_t, 3> ids = {-1, -1, -1};
      if (space != std::string::npos && space + 1 < merge.size()) {
        const std::string left = merge.substr(0, space);
        const std::string right = merge.substr(space + 1);
        ids = {IdOf(left), IdOf(right), IdOf(left + right)};
      }
      if (std::find(ids.begin(), ids.end(), -1) != ids.end()) {
        Fail(ErrorCode::kModelFile,
             fmt::format("tokenizer: {}: merge {} ('{}') must be two tokens with a space between, "
                         "and their concatenation a token as well",
                         source, rank, merge));
      }
      merges_.Add(ids[0], ids[1], {static_cast<int32_t>(rank), ids[2]});
    }
    data_.merges = {};
  }

  void IndexSpecials() {
    for (int32_t id = 0; id < static_cast<int32_t>(data_.tokens.size()); ++id) {
      const int32_t type = Type(id);
      if (type == kTypeUserDefined) user_defined_.Add(data_.tokens[id], id);
      if (type == kTypeUserDefined || type == kTypeControl || type == kTypeUnknown) {
        all_specials_.Add(data_.tokens[id], id);
      }
    }
  }

  // A marker counts only when the file gives it a special type: "</s>" is also plain HTML.
  void FindEnds() {
    if (data_.eos) ends_.push_back(*data_.eos);
    if (data_.eot) ends_.push_back(*data_.eot);
    const bool harmony = IdOf("<|return|>") >= 0 && IdOf("<|call|>") >= 0;
    for (std::string_view marker : kEndMarkers) {
      const int32_t id = IdOf(std::string(marker));
      if (id < 0 || Type(id) == kTypeNormal) continue;
      // In the harmony format <|end|> ends a message, not the answer.
      if (harmony && marker == "<|end|>") continue;
      ends_.push_back(id);
    }
  }

  void EncodePlain(std::string_view plain, std::vector<int32_t>& ids) const {
    std::vector<int32_t> symbols;
    for (std::string_view word : pre_->Split(plain)) {
      if (pre_->ignore_merges()) {
        // Plain text never becomes a control token, even one that is spelled like a word.
        const int32_t whole = IdOf(SpellingOfBytes(word));
        if (whole >= 0 && Type(whole) == kTypeNormal) {
          ids.push_back(whole);
          continue;
        }
      }
      symbols.clear();
      for (char byte : word) symbols.push_back(byte_ids_[static_cast<uint8_t>(byte)]);
      merges_.Merge(symbols);
      std::copy_if(symbols.begin(), symbols.end(), std::back_inserter(ids),
                   [](int32_t id) { return id >= 0; });
    }
  }

  static std::string SpellingOfBytes(std::string_view bytes) {
    std::string spelling;
    for (char byte : bytes) spelling += text::CharacterOfByte(static_cast<uint8_t>(byte));
    return spelling;
  }

  // "<0x0A>" -> "\n"
  static std::optional<std::string> ByteOfHex(std::string_view spelling) {
    if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling[5] != '>') return {};
    int value = 0;
    for (char digit : spelling.substr(3, 2)) {
      const size_t at = std::string_view("0123456789ABCDEFabcdef").find(digit);
      if (at == std::string_view::npos) return {};
      value = value * 16 + static_cast<int>(at < 16 ? at : at - 6);
    }
    return std::string(1, static_cast<char>(value));
  }

  int32_t IdOf(const std::string& spelling) const {
    const auto it = id_of_.find(spelling);
    return it == id_of_.end() ? -1 : it->second;
  }

  int32_t Type(int32_t id) const { return data_.types.empty() ? kTypeNormal : data_.types[id]; }

  const std::string& Spelling(int32_t id) const {
    Check(id >= 0 && static_cast<size_t>(id) < data_.tokens.size(),
          "tokenizer: token id outside the vocabulary");
    return data_.tokens[id];
  }

  VocabularyData data_;
  std::unique_ptr<const text::PreTokenizer> pre_;
  std::unordered_map<std::string, int32_t> id_of_;  // by spelling
  std::array<int32_t, 256> byte_ids_{};             // -1: the vocabulary lacks this byte
  text::MergeTable merges_;
  text::SpecialMatcher all_specials_;
  text::SpecialMatcher user_defined_;
  std::vector<int32_t> ends_;
  bool adds_bos_ = false;
};

}  // namespace

std::unique_ptr<Tokenizer> MakeTokenizer(VocabularyData data, const std::string& source) {
  if (data.model != "gpt2") {
    Fail(ErrorCode::kUnsupported,
         fmt::format("tokenizer: {}: tokenizer model '{}' (tokenizer.ggml.model); tandem reads "
                     "byte-level BPE ('gpt2') only",
                     source, data.model));
  }
  return std::make_unique<BpeTokenizer>(std::move(data), source);
}

}  // namespace tandem
