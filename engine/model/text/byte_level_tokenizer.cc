#include "engine/model/text/byte_level_tokenizer.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "engine/model/text/byte_alphabet.h"
#include "engine/model/text/nfc.h"
#include "engine/model/text/pre_tokenizer.h"
#include "engine/model/text/vocabulary_tokenizer.h"

namespace tandem::text {
namespace {

class ByteLevelTokenizer final : public VocabularyTokenizer {
 public:
  ByteLevelTokenizer(VocabularyData data, const std::string& source)
      : VocabularyTokenizer(std::move(data), source),
        pre_(PreTokenizer::Make(vocabulary().data().pre, source)),
        merges_(vocabulary().TakeMerges(source)),
        ignore_merges_(vocabulary().data().ignore_merges.value_or(pre_->ignore_merges())),
        composes_(vocabulary().data().composes.value_or(pre_->composes())) {
    for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
      byte_ids_[byte] = vocabulary().IdOf(CharacterOfByte(static_cast<uint8_t>(byte)));
    }
  }

 private:
  void EncodeStretches(std::span<const Stretch> stretches,
                       std::vector<int32_t>& ids) const override {
    for (const Stretch& stretch : stretches) {
      if (stretch.id >= 0) {
        ids.push_back(stretch.id);
      } else {
        EncodeText(stretch.text, ids);
      }
    }
  }
  std::string BytesOfPiece(const std::string& spelling) const override {
    return BytesOfSpelling(spelling);
  }
  bool AddsBosByDefault() const override { return pre_->adds_bos_by_default(); }

  void EncodeText(std::string_view text, std::vector<int32_t>& ids) const {
    if (composes_ && !IsPlainlyNfc(text)) {
      EncodePlain(ToNfc(text), ids);
    } else {
      EncodePlain(text, ids);
    }
  }

  void EncodePlain(std::string_view plain, std::vector<int32_t>& ids) const {
    std::vector<int32_t> symbols;
    for (std::string_view word : pre_->Split(plain)) {
      if (ignore_merges_) {
        // Plain text never becomes a control token, even one that is spelled like a word.
        const int32_t whole = vocabulary().IdOf(SpellingOfBytes(word));
        if (whole >= 0 && vocabulary().Type(whole) == kTypeNormal) {
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

  std::unique_ptr<const PreTokenizer> pre_;
  MergeTable merges_;
  bool ignore_merges_;
  bool composes_;
  std::array<int32_t, 256> byte_ids_{};  // -1: the vocabulary lacks this byte
};

}  // namespace

std::unique_ptr<Tokenizer> MakeByteLevelTokenizer(VocabularyData data, const std::string& source) {
  return std::make_unique<ByteLevelTokenizer>(std::move(data), source);
}

}  // namespace tandem::text
