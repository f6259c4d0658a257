#include "engine/plugin/discovery.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string_view>

#include "engine/base/error.h"
#include "engine/base/suggest.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "libtandem_";
constexpr std::string_view kSuffix = ".so";

// "split" for libtandem_split.so and split.so; empty for other files.
std::string NameOfFile(const fs::path& file) {
  std::string name = file.filename().string();
  if (!name.ends_with(kSuffix)) return "";
  name.resize(name.size() - kSuffix.size());
  if (name.starts_with(kPrefix)) name.erase(0, kPrefix.size());
  return name;
}

std::string Absolute(const fs::path& path) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  return error ? fs::absolute(path, error).string() : real.string();
}

// Both where it was found and where links lead must be safe.
PluginFile Allowed(const std::string& name, const std::string& found) {
  const std::string real = Absolute(found);
  for (const std::string& path : {found, real}) {
    const std::string why = WhyRefused(path);
    if (!why.empty()) Fail(ErrorCode::kPlugin, fmt::format("plugin {}: {}", path, why));
  }
  return {name, real};
}

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

}  // namespace

PluginFile FindPlugin(const std::string& name, const std::vector<std::string>& folders) {
  if (name.find('/') != std::string::npos) {
    if (!Exists(name)) {
      Fail(ErrorCode::kPlugin, fmt::format("plugin {}: no such file", name));
    }
    return Allowed("", name);
  }
  for (const std::string& folder : folders) {
    if (folder.empty() || name.empty()) continue;  // an empty folder would mean the current one
    for (const std::string& file :
         {fmt::format("{}{}{}", kPrefix, name, kSuffix), fmt::format("{}{}", name, kSuffix)}) {
      const fs::path path = fs::path(folder) / file;
      if (Exists(path)) return Allowed(name, path.string());
    }
  }
  std::vector<std::string> known{"auto", "file"};
  for (const PluginFile& file : ListPluginFiles(folders)) known.push_back(file.name);
  Fail(ErrorCode::kPlugin,
       fmt::format("plugin '{}': not found{}; there are {}; looked in {} (a path needs a '/')",
                   name, DidYouMean(name, known), fmt::join(known, ", "),
                   folders.empty() ? "no folder" : fmt::format("{}", fmt::join(folders, ", "))));
}

std::vector<PluginFile> ListPluginFiles(const std::vector<std::string>& folders) {
  std::map<std::string, std::string> found;  // by name
  for (const std::string& folder : folders) {
    if (folder.empty()) continue;
    std::map<std::string, std::string> here;
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
      const std::string name = NameOfFile(entry.path());
      if (name.empty()) continue;
      const bool prefixed = entry.path().filename().string().starts_with(kPrefix);
      if (prefixed || !here.contains(name)) here[name] = Absolute(entry.path());
    }
    found.merge(here);
  }
  std::vector<PluginFile> files;
  for (const auto& [name, path] : found) files.push_back({name, path});
  return files;
}

std::string WhyRefused(const std::string& path) {
  struct stat file{};
  struct stat folder{};
  const std::string parent = fs::path(path).parent_path().string();
  if (stat(path.c_str(), &file) != 0) return "cannot be read (a broken link?)";
  if (!S_ISREG(file.st_mode)) return "is no regular file";
  if ((file.st_mode & S_IWOTH) != 0) {
    return "anyone may write to it, so it is not opened; take the permission away with chmod o-w";
  }
  if (stat(parent.c_str(), &folder) != 0) return "its folder cannot be read";
  if ((folder.st_mode & S_IWOTH) != 0) {
    return fmt::format(
        "anyone may write to its folder {}, so it is not opened; move it, or take "
        "the permission away with chmod o-w",
        parent);
  }
  return "";
}

}  // namespace tandem
