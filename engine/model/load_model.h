// Opens whatever a user may call a model: a GGUF file, any part of a split one, or a folder with
// config.json and safetensors, as Hugging Face's libraries write it.
//
//   std::shared_ptr<const Model> model = LoadModel("models/smollm2");
#pragma once

#include <memory>
#include <string>

#include "engine/model/gguf_vocabulary.h"
#include "engine/model/model.h"

namespace tandem {

// Throws Error(kModelFile | kUnsupported).
std::shared_ptr<const Model> LoadModel(const std::string& path);

// The tokenizer and the chat template alone. Throws the same.
StoredVocabulary LoadModelVocabulary(const std::string& path);

}  // namespace tandem
