// SentencePiece's BPE, the tokenizer of Llama 1 and 2, Mistral and TinyLlama: spaces are spelled
// U+2581, one is put before the text, the whole text is merged at once, and a character without a
// piece becomes its bytes ("<0xE2>"), or the unknown token where the vocabulary has no bytes.
//
// GGUF files give each piece a score; a tokenizer.json of the same model lists merges instead.
// Either decides which pair merges first.
#pragma once

#include <memory>
#include <string>

#include "engine/model/tokenizer.h"

namespace tandem::text {

// Throws as MakeTokenizer does.
std::unique_ptr<Tokenizer> MakeSentencePieceTokenizer(VocabularyData data,
                                                      const std::string& source);

}  // namespace tandem::text
