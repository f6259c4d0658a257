#include "tools/tandem/install.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <regex>
#include <sstream>

#include "engine/base/error.h"
#include "engine/base/suggest.h"
#include "engine/model/huggingface/directory.h"
#include "engine/model/load_model.h"
#include "engine/model/synthetic.h"
#include "tools/tandem/model_shapes.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// The ':'-separated folders of an environment variable.
std::vector<std::string> EnvironmentFolders(const char* name) {
  std::vector<std::string> folders;
  std::istringstream list(Environment(name));
  for (std::string folder; std::getline(list, folder, ':');) {
    if (!folder.empty()) folders.push_back(folder);
  }
  return folders;
}

constexpr std::string_view kSyntheticPrefix = "synthetic:";

bool LooksLikePath(const std::string& name) {
  return name.find('/') != std::string::npos || name.ends_with(".gguf") ||
         IsHuggingFaceFolder(name);
}

// The name of a model found in a model folder; empty for what is none. Parts of a split file go by
// their first.
std::string NameOfEntry(const fs::path& path) {
  if (IsHuggingFaceFolder(path.string())) return path.filename().string();
  if (path.extension() != ".gguf") return "";
  std::string stem = path.stem().string();
  static const std::regex part("(.*)-([0-9]{5})-of-[0-9]{5}");
  std::smatch match;
  if (!std::regex_match(stem, match, part)) return stem;
  return match[2] == "00001" ? match[1].str() : "";
}

}  // namespace

std::string ExecutableFolder() {
  std::error_code error;
  fs::path self = fs::read_symlink("/proc/self/exe", error);
  return error ? std::string(".") : self.parent_path().string();
}

PlannerOptions DefaultPlannerOptions() {
  fs::path bin = ExecutableFolder();
  PlannerOptions options;
  options.helper = (bin / "tandem-planner").string();
  options.folders = EnvironmentFolders("TANDEM_PLUGIN_PATH");
  options.folders.push_back((bin.parent_path() / "lib" / "tandem" / "plugins").string());
  return options;
}

std::vector<std::string> CatalogueRoots() {
  std::vector<std::string> roots = EnvironmentFolders("TANDEM_SCENARIOS");
  fs::path bin = ExecutableFolder();
  // A build tree lies two folders below the repository; an installed tree has share/.
  for (const fs::path& root :
       {bin / ".." / ".." / ".." / "scenarios", bin / ".." / "share" / "tandem" / "scenarios"}) {
    if (fs::is_directory(root)) roots.push_back(fs::canonical(root).string());
  }
  return roots;
}

std::vector<std::string> ModelFolders() {
  std::vector<std::string> folders = EnvironmentFolders("TANDEM_MODELS");
  folders.push_back(
      (fs::path(ExecutableFolder()).parent_path() / "share" / "tandem" / "models").string());
  std::string data = Environment("XDG_DATA_HOME");
  std::string home = Environment("HOME");
  if (data.empty() && !home.empty()) data = home + "/.local/share";
  if (!data.empty()) folders.push_back(data + "/tandem/models");
  return folders;
}

std::vector<std::pair<std::string, std::string>> InstalledModels() {
  std::vector<std::pair<std::string, std::string>> models;
  for (const std::string& folder : ModelFolders()) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      std::string name = NameOfEntry(entry.path());
      if (name.empty()) continue;
      // By name; of one name, in the order of the folders.
      const auto at = std::upper_bound(models.begin(), models.end(), name,
                                       [](const auto& a, const auto& b) { return a < b.first; });
      models.emplace(at, name, entry.path().string());
    }
  }
  return models;
}

std::string ModelPath(const std::string& name) {
  if (LooksLikePath(name)) return name;
  std::vector<std::string> names;
  for (const auto& [known, path] : InstalledModels()) {
    if (known == name) return path;
    names.push_back(known);
  }
  if (FindShape(name)) {
    Fail(ErrorCode::kModelFile,
         fmt::format("model '{}' is a shape of the catalogue: it has no file, no weights and no "
                     "tokenizer; tandem predict and tandem plan take it, and tandem models show",
                     name));
  }
  for (const std::string& shape : Catalogue(CatalogueRoots()).ModelNames()) names.push_back(shape);
  std::string searched;
  for (const std::string& folder : ModelFolders()) searched += "\n  " + folder;
  Fail(ErrorCode::kModelFile, fmt::format("model '{}' not found{}; searched for {}.gguf in:{}\n"
                                          "Give a path to a GGUF file or a safetensors folder, or "
                                          "get the default model with tools/quickstart.",
                                          name, DidYouMean(name, names), name, searched));
}

std::shared_ptr<const Model> OpenModel(const std::string& value, bool shape_only) {
  if (value.starts_with(kSyntheticPrefix)) {
    return GenerateModel(ParseSyntheticSpec(value.substr(kSyntheticPrefix.size())), shape_only);
  }
  if (!LooksLikePath(value)) {
    if (const std::optional<SyntheticSpec> shape = FindShape(value)) {
      return GenerateModel(*shape, shape_only);
    }
  }
  return LoadModel(ModelPath(value));
}

}  // namespace tandem
