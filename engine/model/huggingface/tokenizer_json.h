// The tokenizer of a model directory: tokenizer.json, and what tokenizer_config.json,
// generation_config.json and chat_template.jinja add to it. Two kinds are read, byte-level BPE
// (GPT-2, SmolLM2, Llama 3, Qwen) and BPE over text with U+2581 for spaces and bytes for what has
// no piece (Llama 2, Mistral); every step of another kind is refused by its name. Unicode
// normalisation NFC (Qwen's files ask for it) is done.
//
//   std::optional<VocabularyData> data = ReadHuggingFaceVocabulary(files, rows_of_embedding);
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/model/huggingface/directory.h"
#include "engine/model/tokenizer.h"

namespace tandem {

// Empty when there is no tokenizer.json. With `rows` the vocabulary has that many tokens, those
// that the file does not name being holes. Throws Error(kModelFile | kUnsupported) naming file and
// field.
std::optional<VocabularyData> ReadHuggingFaceVocabulary(const HuggingFaceFiles& files,
                                                        std::optional<uint32_t> rows);

// Empty text when the directory has none; of several, the one named "default".
std::string ReadHuggingFaceChatTemplate(const HuggingFaceFiles& files);

}  // namespace tandem
