// The reference logits of tests/golden/architectures.json, which tools/make-architecture-golden
// makes.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

namespace tandem::testing {

// Each entry has name, spec, ids, top, columns, kv_effect and samples (position, logits).

// Every variant of every architecture, in f32.
inline std::vector<nlohmann::json> ArchitectureCases() {
  std::ifstream file("tests/golden/architectures.json");
  return nlohmann::json::parse(file).at("cases");
}

// Every variant in every weight type. The file says once what they have in common.
inline std::vector<nlohmann::json> TypedArchitectureCases() {
  std::ifstream file("tests/golden/architectures.json");
  const nlohmann::json types = nlohmann::json::parse(file).at("types");
  std::vector<nlohmann::json> cases = types.at("models");
  for (nlohmann::json& entry : cases) {
    entry["ids"] = types.at("ids");
    entry["columns"] = types.at("columns");
    for (size_t i = 0; i < types.at("positions").size(); ++i) {
      entry["samples"].push_back(
          {{"position", types.at("positions").at(i)}, {"logits", entry.at("logits").at(i)}});
    }
  }
  return cases;
}

}  // namespace tandem::testing
