// A model directory as Hugging Face's libraries write it: config.json, the weights as one
// model.safetensors or as shards that model.safetensors.index.json names, and, where there is one,
// the tokenizer's files. The files may come from a folder or, in tests, from memory.
//
//   std::shared_ptr<const Model> model = LoadHuggingFace(OpenHuggingFaceFolder(path));
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/huggingface/bounded_json.h"
#include "engine/model/huggingface/safetensors.h"
#include "engine/model/model.h"

namespace tandem {

struct HuggingFaceFiles {
  std::string source;                                         // the folder's path, for messages
  std::map<std::string, std::span<const std::byte>> content;  // by file name
  std::shared_ptr<const void> owner;                          // keeps the bytes alive; may be null

  bool Has(const std::string& name) const { return content.contains(name); }
  std::string PathOf(const std::string& name) const { return source + "/" + name; }
  // Empty when there is no such file.
  std::optional<std::string_view> Text(const std::string& name) const;
  std::optional<nlohmann::json> Json(const std::string& name, const JsonLimits& limits) const;
};

// Whether the folder looks like one: it has a config.json.
bool IsHuggingFaceFolder(const std::string& path);

// Maps the files that loading reads; no other file of the folder is touched, and none outside it
// (where the folder's own entries are symbolic links, what they lead to is read). Throws
// Error(kModelFile) naming a file that is missing and who wants it.
HuggingFaceFiles OpenHuggingFaceFolder(const std::string& path);

// The files that hold weights, in order of their names. Throws Error(kModelFile) for an index that
// names a file outside the folder.
std::vector<std::string> WeightFiles(const HuggingFaceFiles& files);

// A weight file and its header; throws as ReadSafetensorsHeader, and when the index and the file
// disagree about what it holds.
struct WeightFile {
  std::string path;
  std::span<const std::byte> bytes;
  SafetensorsHeader header;
};
std::vector<WeightFile> ReadWeightFiles(const HuggingFaceFiles& files);

// Throws Error(kModelFile | kUnsupported).
std::shared_ptr<const Model> LoadHuggingFace(HuggingFaceFiles files);

}  // namespace tandem
