// The plans kept as text under plugins/NAME/golden. Each file's first line, a comment, is its case:
//
//   # layers=1 kv_heads=3 devices=2 tensor_split=1,2 knob.microbatches=4
//
// so a plugin brings its own. For a new one write that line alone into a file and build
// regenerate_golden_plans.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/plugin/planner.h"
#include "tests/plugin/test_problem.h"

namespace tandem {

struct GoldenCase {
  std::string plugin;
  std::string path;
  std::string header;  // the first line, its newline included
  std::string text;    // the whole file
  ProblemShape shape;
  std::vector<Knob> knobs;
};

inline GoldenCase ReadGoldenCase(const std::filesystem::path& path) {
  GoldenCase c;
  c.path = path.string();
  c.plugin = path.parent_path().parent_path().filename().string();
  std::ifstream file(path);
  c.text.assign(std::istreambuf_iterator<char>(file), {});
  c.header = c.text.substr(0, c.text.find('\n') + 1);
  std::istringstream words(c.header);
  std::string word;
  words >> word;
  if (word != "#")
    Fail(ErrorCode::kInvalidArgument, c.path + ": the first line is not '# key=value ...'");
  while (words >> word) {
    const std::string key = word.substr(0, word.find('='));
    const std::string value = word.substr(std::min(word.size(), key.size() + 1));
    if (key == "layers") {
      c.shape.layers = static_cast<uint32_t>(std::stoul(value));
    } else if (key == "kv_heads") {
      c.shape.kv_heads = static_cast<uint32_t>(std::stoul(value));
    } else if (key == "devices") {
      c.shape.devices = static_cast<uint32_t>(std::stoul(value));
    } else if (key == "cpu") {  // the last device is the host's processor
      c.shape.cpu = value == "1";
    } else if (key == "tensor_split") {
      std::istringstream shares(value);
      for (std::string share; std::getline(shares, share, ',');) {
        c.shape.tensor_split.push_back(std::stod(share));
      }
    } else if (key.starts_with("knob.")) {
      c.knobs.push_back({key.substr(5), value});
    } else {
      Fail(ErrorCode::kInvalidArgument, c.path + ": no such key: " + key);
    }
  }
  return c;
}

// Of every plugin, by path; from the repository's root.
inline std::vector<GoldenCase> GoldenCases() {
  std::vector<std::filesystem::path> paths;
  for (const auto& plugin : std::filesystem::directory_iterator("plugins")) {
    if (!std::filesystem::is_directory(plugin.path() / "golden")) continue;
    for (const auto& file : std::filesystem::directory_iterator(plugin.path() / "golden")) {
      paths.push_back(file.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  std::vector<GoldenCase> cases;
  for (const auto& path : paths) cases.push_back(ReadGoldenCase(path));
  return cases;
}

}  // namespace tandem
