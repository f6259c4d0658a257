// Finds a plugin's file by name or path, and says whether it may be opened at all.
#pragma once

#include <string>
#include <vector>

namespace tandem {

struct PluginFile {
  std::string name;  // from the file's name; empty when it was given as a path
  std::string path;  // absolute, links resolved
};

// A name with a '/' is a path. Any other is looked for as libtandem_NAME.so, then NAME.so, folder
// by folder in order; the first that exists is the one, good or bad. Throws Error(kPlugin) with
// near names, Error(kPlugin) when the file may not be opened (see WhyRefused).
PluginFile FindPlugin(const std::string& name, const std::vector<std::string>& folders);

// Every plugin file of the folders by name, sorted; of equal names the one FindPlugin finds.
// Folders that do not exist are skipped.
std::vector<PluginFile> ListPluginFiles(const std::vector<std::string>& folders);

// Why a plugin's file must not be opened (anyone may write it, or its folder; no regular file);
// empty when it may.
std::string WhyRefused(const std::string& path);

}  // namespace tandem
