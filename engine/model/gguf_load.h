// Loading a model from GGUF bytes that are in memory already: what LoadGguf (model.h) does once the
// files are mapped. For tests and fuzzing; throws like LoadGguf.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "engine/model/gguf.h"
#include "engine/model/model.h"

namespace tandem {

// One file of a model, whole or a part of it.
struct GgufFile {
  std::span<const std::byte> bytes;
  std::string source;  // its path, for messages
};

// The parts of one model, in order; one file is a whole model. `owner` keeps the bytes alive (null
// when the caller outlives the model).
std::shared_ptr<const Model> LoadGgufFiles(std::span<const GgufFile> files,
                                           std::shared_ptr<const void> owner);

std::shared_ptr<const Model> LoadGgufBytes(std::span<const std::byte> bytes,
                                           std::shared_ptr<const void> owner,
                                           const std::string& source);

// Where a tensor lies, checked against the file. Throws Error(kModelFile | kUnsupported).
TensorView LocateGgufTensor(const GgufTensor& tensor, const GgufHeader& header,
                            std::span<const std::byte> file);

}  // namespace tandem
