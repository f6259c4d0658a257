// A model cut over several GGUF files: `name-00001-of-00003.gguf` and its siblings. Each part is a
// GGUF file of its own with keys split.no (from 0), split.count and split.tensors.count; the first
// also holds the model's metadata. Any part leads to the others, by its name.
//
//   if (auto split = ReadSplit(header.metadata)) paths = PathsOfParts(path, *split);
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/gguf.h"

namespace tandem {

struct GgufSplit {
  uint32_t no = 0;       // this part, from 0
  uint32_t count = 0;    // parts in all, at least 2
  uint32_t tensors = 0;  // over all parts
};

inline constexpr uint32_t kMaxGgufParts = 99999;  // five digits

// The path of part `no` of `count`: "models/tiny" becomes "models/tiny-00001-of-00003.gguf".
std::string PathOfPart(std::string_view stem, uint32_t no, uint32_t count);

// Empty when the file is a whole model. Throws Error(kModelFile) for numbers that cannot be.
std::optional<GgufSplit> ReadSplit(const GgufMetadata& metadata);

// Every part's path, in order. Throws Error(kModelFile) when `path` is not named as its part is.
std::vector<std::string> PathsOfParts(const std::string& path, const GgufSplit& split);

// Whether these headers are the parts of one model, in order; throws Error(kModelFile) naming the
// part that is foreign, and what was wanted of it.
void RequireOneModel(std::span<const GgufHeader> parts);

}  // namespace tandem
