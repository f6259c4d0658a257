// The vocabulary of a GGUF file: the keys under tokenizer.ggml, and the chat template. Works on
// files without a single tensor, such as the vocabularies that llama.cpp tests with.
//
//   StoredVocabulary v = LoadVocabulary("model.gguf");
//   if (v.tokenizer != nullptr) ids = v.tokenizer->Encode("Hi", {});
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "engine/model/gguf.h"
#include "engine/model/tokenizer.h"

namespace tandem {

// Empty when the file has no vocabulary. Throws Error(kModelFile) for keys that contradict each
// other, or another number of tokens than of `rows`, the embedding's, where that is known.
std::optional<VocabularyData> ReadVocabularyData(const GgufMetadata& metadata,
                                                 std::optional<uint32_t> rows);

struct StoredVocabulary {
  std::unique_ptr<Tokenizer> tokenizer;  // null: the file has no vocabulary
  std::string chat_template;             // "": the file has none
};

// Reads no tensor and does not ask whether tandem knows the architecture. Throws as LoadGguf does.
StoredVocabulary LoadVocabulary(const std::string& path);

}  // namespace tandem
