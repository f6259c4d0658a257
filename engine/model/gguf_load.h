// Loading a model from GGUF bytes that are in memory already: what LoadGguf (model.h) does once the
// file is mapped. For tests and fuzzing; throws like LoadGguf.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "engine/model/model.h"

namespace tandem {

// `bytes` is kept alive by `owner` (which may be null when the caller outlives the model).
std::shared_ptr<const Model> LoadGgufBytes(std::span<const std::byte> bytes,
                                           std::shared_ptr<const void> owner,
                                           const std::string& source);

}  // namespace tandem
