// Which kind of tokenizer a vocabulary is for.

#include "engine/model/tokenizer.h"

#include <fmt/format.h>

#include <utility>

#include "engine/base/error.h"
#include "engine/model/text/byte_level_tokenizer.h"
#include "engine/model/text/sentencepiece_tokenizer.h"

namespace tandem {

std::unique_ptr<Tokenizer> MakeTokenizer(VocabularyData data, const std::string& source) {
  if (data.model == "gpt2") return text::MakeByteLevelTokenizer(std::move(data), source);
  if (data.model == "llama") return text::MakeSentencePieceTokenizer(std::move(data), source);
  Fail(ErrorCode::kUnsupported,
       fmt::format("tokenizer: {}: tokenizer model '{}' (tokenizer.ggml.model); tandem reads "
                   "byte-level BPE ('gpt2') and SentencePiece ('llama')",
                   source, data.model));
}

}  // namespace tandem
