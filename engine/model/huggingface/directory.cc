#include "engine/model/huggingface/directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

#include "engine/base/error.h"
#include "engine/model/gguf.h"
#include "engine/model/mapped_file.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kWeights[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr JsonLimits kIndexLimits = {.bytes = 64u << 20, .depth = 4, .values = 1u << 18};
constexpr const char* kTextFiles[] = {"config.json", "generation_config.json", "tokenizer.json",
                                      "tokenizer_config.json", "chat_template.jinja"};

using Index = std::map<std::string, std::string>;  // file of each tensor

[[noreturn]] void Refuse(const std::string& path, const std::string& problem) {
  Fail(ErrorCode::kModelFile, fmt::format("model: {}: {}", path, problem));
}

bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos &&
         name.ends_with(".safetensors");
}

Index ReadIndex(const HuggingFaceFiles& files) {
  const std::string path = files.PathOf(kIndex);
  const json document = *files.Json(kIndex, kIndexLimits);
  const JsonFields fields(document, path);
  const json* map = fields.Find("weight_map");
  if (map == nullptr || !map->is_object() || map->empty()) {
    fields.Refuse("weight_map", "want an object of tensor names and the files that hold them");
  }
  Index index;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !IsPlainFileName(file.get<std::string>())) {
      fields.Refuse("weight_map",
                    fmt::format("tensor {} in {} (want the name of a .safetensors file in this "
                                "folder)",
                                QuoteForMessage(tensor), QuoteJson(file)));
    }
    index.emplace(tensor, file.get<std::string>());
  }
  return index;
}

// What the folder's files say, and no more, must be in the file.
void RequireIndexed(const WeightFile& file, const std::string& name, const Index& index) {
  std::set<std::string_view> held;
  for (const SafetensorsTensor& tensor : file.header.tensors) {
    held.insert(tensor.name);
    const auto it = index.find(tensor.name);
    if (it == index.end() || it->second != name) {
      Refuse(file.path,
             fmt::format("tensor {}: the index ({}) {}", QuoteForMessage(tensor.name), kIndex,
                         it == index.end() ? "does not name it"
                                           : "has it in " + QuoteForMessage(it->second)));
    }
  }
  for (const auto& [tensor, holder] : index) {
    if (holder == name && !held.contains(tensor)) {
      Refuse(file.path, fmt::format("tensor {}: missing, but the index ({}) has it in this file",
                                    QuoteForMessage(tensor), kIndex));
    }
  }
}

std::vector<std::string> FilesOf(const Index& index) {
  std::set<std::string> names;
  for (const auto& [tensor, file] : index) {
    names.insert(file);
  }
  return {names.begin(), names.end()};
}

// The folder has no safetensors: what else could it hold?
[[noreturn]] void RefuseWithoutWeights(const std::string& path) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(path, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".gguf")) {
      Refuse(path, fmt::format("no {}; for the GGUF file give its own path, {}", kWeights,
                               entry.path().string()));
    }
    if (name.ends_with(".bin") || name.ends_with(".pth") || name.ends_with(".pt")) {
      Refuse(path, fmt::format("no {}; PyTorch weights ({}) are not read (want safetensors)",
                               kWeights, name));
    }
  }
  Refuse(path, fmt::format("neither {} nor {}", kWeights, kIndex));
}

}  // namespace

std::optional<std::string_view> HuggingFaceFiles::Text(const std::string& name) const {
  const auto it = content.find(name);
  if (it == content.end()) {
    return std::nullopt;
  }
  return std::string_view(reinterpret_cast<const char*>(it->second.data()), it->second.size());
}

std::optional<json> HuggingFaceFiles::Json(const std::string& name,
                                           const JsonLimits& limits) const {
  const std::optional<std::string_view> text = Text(name);
  if (!text) {
    return std::nullopt;
  }
  return ParseBoundedJson(*text, limits, PathOf(name));
}

bool IsHuggingFaceFolder(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(fs::path(path) / "config.json", error);
}

HuggingFaceFiles OpenHuggingFaceFolder(const std::string& path) {
  HuggingFaceFiles files{.source = path};
  while (files.source.size() > 1 && files.source.ends_with('/')) {
    files.source.pop_back();
  }
  if (!IsHuggingFaceFolder(path)) {
    Refuse(path,
           "no config.json (want a GGUF file, or a folder with config.json, "
           "model.safetensors and tokenizer.json)");
  }
  auto owner = std::make_shared<std::vector<std::shared_ptr<const MappedFile>>>();
  std::error_code error;
  const auto open = [&](const std::string& name) {
    owner->push_back(MappedFile::Open(files.PathOf(name)));
    files.content[name] = owner->back()->bytes();
  };
  const auto exists = [&](const std::string& name) {
    return fs::exists(files.PathOf(name), error);
  };
  for (const char* name : kTextFiles) {
    if (exists(name)) {
      open(name);
    }
  }
  if (exists(kIndex)) {
    open(kIndex);
    for (const std::string& name : WeightFiles(files)) {
      if (!exists(name)) {
        Refuse(files.PathOf(name), fmt::format("missing, but the index ({}) names it", kIndex));
      }
      open(name);
    }
  } else if (exists(kWeights)) {
    open(kWeights);
  } else {
    RefuseWithoutWeights(path);
  }
  files.owner = std::move(owner);
  return files;
}

std::vector<std::string> WeightFiles(const HuggingFaceFiles& files) {
  if (files.Has(kIndex)) {
    return FilesOf(ReadIndex(files));
  }
  return {kWeights};
}

std::vector<WeightFile> ReadWeightFiles(const HuggingFaceFiles& files) {
  const bool indexed = files.Has(kIndex);
  const Index index = indexed ? ReadIndex(files) : Index();
  const std::vector<std::string> names =
      indexed ? FilesOf(index) : std::vector<std::string>{kWeights};
  for (const std::string& name : names) {
    if (!files.Has(name)) {
      Refuse(files.PathOf(name), "missing");
    }
  }
  std::vector<WeightFile> weights;
  for (const std::string& name : names) {
    WeightFile file{.path = files.PathOf(name), .bytes = files.content.at(name)};
    file.header = ReadSafetensorsHeader(file.bytes, file.path);
    if (indexed) {
      RequireIndexed(file, name, index);
    }
    weights.push_back(std::move(file));
  }
  return weights;
}

}  // namespace tandem
