#include "engine/model/text/vocabulary_tokenizer.h"

#include <utility>

#include "engine/model/text/utf8.h"

namespace tandem::text {

VocabularyTokenizer::VocabularyTokenizer(VocabularyData data, const std::string& source)
    : vocabulary_(std::move(data), source) {}

std::vector<int32_t> VocabularyTokenizer::Encode(std::string_view input,
                                                 const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  std::string repaired;
  if (!IsValidUtf8(input)) {
    repaired = ReplaceInvalidUtf8(input);
    input = repaired;
  }
  EncodeStretches(vocabulary_.Cut(input, options.parse_special), ids);
  if (options.add_bos) vocabulary_.PutBos(ids);
  return ids;
}

std::string VocabularyTokenizer::TokenBytes(int32_t id, bool render_special) const {
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
      return BytesOfPiece(spelling);
  }
}

}  // namespace tandem::text
