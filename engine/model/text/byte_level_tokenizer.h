// Byte-level BPE, the tokenizer of GPT-2 and of Llama 3, Qwen, SmolLM and Mistral's Tekken: the
// pre-tokenizer cuts text into words, a word starts as its bytes, and the merges join them.
#pragma once

#include <memory>
#include <string>

#include "engine/model/tokenizer.h"

namespace tandem::text {

// Throws as MakeTokenizer does.
std::unique_ptr<Tokenizer> MakeByteLevelTokenizer(VocabularyData data, const std::string& source);

}  // namespace tandem::text
