#include "engine/model/text/byte_level_tokenizer.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "engine/model/text/byte_alphabet.h"
#include "engine/model/text/pre_tokenizer.h"
#include "engine/model/text/utf8.h"
#include "engine/model/text/vocabulary.h"

namespace tandem::text {
namespace {

class ByteLevelTokenizer final : public Tokenizer {
 public:
  ByteLevelTokenizer(VocabularyData data, const std::string& source)
      : vocabulary_(std::move(data), source),
        pre_(PreTokenizer::Make(vocabulary_.data().pre, source)),
        merges_(vocabulary_.TakeMerges(source)),
        ignore_merges_(vocabulary_.data().ignore_merges.value_or(pre_->ignore_merges())),
        adds_bos_(bos() && vocabulary_.data().add_bos.value_or(pre_->adds_bos_by_default())) {
    for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
      byte_ids_[byte] = vocabulary_.IdOf(CharacterOfByte(static_cast<uint8_t>(byte)));
    }
  }

  uint32_t vocab_size() const override { return static_cast<uint32_t>(vocabulary_.size()); }

  std::vector<int32_t> Encode(std::string_view input, const EncodeOptions& options) const override {
    std::vector<int32_t> ids;
    std::string repaired;
    if (!IsValidUtf8(input)) {
      repaired = ReplaceInvalidUtf8(input);
      input = repaired;
    }
    for (const Stretch& stretch : vocabulary_.Cut(input, options.parse_special)) {
      if (stretch.id >= 0) {
        ids.push_back(stretch.id);
      } else {
        EncodePlain(stretch.text, ids);
      }
    }
    if (options.add_bos) vocabulary_.PutBos(ids);
    return ids;
  }

  std::string TokenBytes(int32_t id, bool render_special) const override {
    const std::string& spelling = vocabulary_.Spelling(id);
    switch (vocabulary_.Type(id)) {
      case kTypeControl:
      case kTypeUnknown:
        return render_special ? spelling : "";
      case kTypeUserDefined:
        return spelling;
      case kTypeByte:
        if (const auto byte = ByteOfHex(spelling)) return std::string(1, static_cast<char>(*byte));
        return spelling;
      default:
        return BytesOfSpelling(spelling);
    }
  }

  std::string TokenText(int32_t id) const override { return vocabulary_.Spelling(id); }
  std::optional<int32_t> bos() const override { return vocabulary_.data().bos; }
  std::optional<int32_t> eos() const override { return vocabulary_.data().eos; }
  bool IsEndOfGeneration(int32_t id) const override { return vocabulary_.IsEndOfGeneration(id); }
  bool IsSpecial(int32_t id) const override { return vocabulary_.IsSpecial(id); }
  bool adds_bos() const override { return adds_bos_; }

 private:
  void EncodePlain(std::string_view plain, std::vector<int32_t>& ids) const {
    std::vector<int32_t> symbols;
    for (std::string_view word : pre_->Split(plain)) {
      if (ignore_merges_) {
        // Plain text never becomes a control token, even one that is spelled like a word.
        const int32_t whole = vocabulary_.IdOf(SpellingOfBytes(word));
        if (whole >= 0 && vocabulary_.Type(whole) == kTypeNormal) {
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
    for (char byte : bytes) spelling += CharacterOfByte(static_cast<uint8_t>(byte));
    return spelling;
  }

  Vocabulary vocabulary_;
  std::unique_ptr<const PreTokenizer> pre_;
  MergeTable merges_;
  bool ignore_merges_;
  bool adds_bos_;
  std::array<int32_t, 256> byte_ids_{};  // -1: the vocabulary lacks this byte
};

}  // namespace

std::unique_ptr<Tokenizer> MakeByteLevelTokenizer(VocabularyData data, const std::string& source) {
  return std::make_unique<ByteLevelTokenizer>(std::move(data), source);
}

}  // namespace tandem::text
