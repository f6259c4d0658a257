// The steps before and after the merges, as tokenizer.json lists them, and what they come to.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "engine/model/tokenizer.h"

namespace tandem {

// Fills data.model and, of byte-level BPE, data.pre; of the other kind, data.space_prefix.
// `document` is the whole tokenizer.json, an object. Throws Error(kUnsupported) naming a step that
// tandem does not do.
void ReadTokenizerSteps(const nlohmann::json& document, const std::string& source,
                        VocabularyData& data);

// Whether the steps after the merges put `token` first.
bool StartsWithToken(const nlohmann::json& document, std::string_view token);

}  // namespace tandem
