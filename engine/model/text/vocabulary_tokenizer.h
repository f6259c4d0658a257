// What every tokenizer over a Vocabulary does alike: repairs UTF-8, cuts at special tokens, puts
// BOS, turns ids into bytes by their type. A kind of tokenizer says how plain text becomes pieces,
// and how a piece's spelling becomes text.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/text/vocabulary.h"

namespace tandem::text {

class VocabularyTokenizer : public Tokenizer {
 public:
  uint32_t vocab_size() const final { return static_cast<uint32_t>(vocabulary_.size()); }
  std::vector<int32_t> Encode(std::string_view input, const EncodeOptions& options) const final;
  std::string TokenBytes(int32_t id, bool render_special) const final;
  std::string TokenText(int32_t id) const final { return vocabulary_.Spelling(id); }
  std::optional<int32_t> bos() const final { return vocabulary_.data().bos; }
  std::optional<int32_t> eos() const final { return vocabulary_.data().eos; }
  bool IsEndOfGeneration(int32_t id) const final { return vocabulary_.IsEndOfGeneration(id); }
  bool IsSpecial(int32_t id) const final { return vocabulary_.IsSpecial(id); }
  bool adds_bos() const final {
    return bos() && vocabulary_.data().add_bos.value_or(AddsBosByDefault());
  }

 protected:
  // Throws as MakeTokenizer does.
  VocabularyTokenizer(VocabularyData data, const std::string& source);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  Vocabulary& vocabulary() { return vocabulary_; }

 private:
  // Appends the ids of a text that has been cut.
  virtual void EncodeStretches(std::span<const Stretch> stretches,
                               std::vector<int32_t>& ids) const = 0;
  // The bytes that a piece of this spelling, neither special nor a byte token, stands for.
  virtual std::string BytesOfPiece(const std::string& spelling) const = 0;
  // Where the file does not say.
  virtual bool AddsBosByDefault() const = 0;

  Vocabulary vocabulary_;
};

}  // namespace tandem::text
