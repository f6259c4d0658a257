// Opens whatever a user may call a model: a GGUF file, any part of a split one, or a folder with
// config.json and safetensors, as Hugging Face's libraries write it.
//
//   std::shared_ptr<const Model> model = LoadModel("models/smollm2");
#pragma once

#include <memory>
#include <string>

#include "engine/model/model.h"

namespace tandem {

// Throws Error(kNotFound | kModelFile | kUnsupported).
std::shared_ptr<const Model> LoadModel(const std::string& path);

}  // namespace tandem
