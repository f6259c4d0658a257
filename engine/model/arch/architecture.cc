#include "engine/model/arch/architecture.h"

#include <fmt/format.h>

#include "engine/base/check.h"

namespace tandem {

// One family a file; this is the list.
const Architecture& LlamaArchitecture();
const Architecture& Qwen2Architecture();
const Architecture& Qwen3Architecture();

namespace {

std::span<const Architecture* const> All() {
  static const Architecture* const kAll[] = {&LlamaArchitecture(), &Qwen2Architecture(),
                                             &Qwen3Architecture()};
  return kAll;
}

}  // namespace

uint64_t ExtentOf(Extent extent, const ModelConfig& config) {
  switch (extent) {
    case Extent::kOne:
      return 1;
    case Extent::kHidden:
      return config.hidden;
    case Extent::kQuery:
      return config.q_dim();
    case Extent::kKeyValue:
      return config.kv_dim();
    case Extent::kHeadDim:
      return config.head_dim;
    case Extent::kFfn:
      return config.ffn;
    case Extent::kVocab:
      return config.vocab;
  }
  Check(false, "architecture: no such extent");
  return 0;
}

ModelConfig FamilyConfig(const Architecture& arch) {
  ModelConfig config;
  config.architecture = arch.name;
  config.rope_interleaved = arch.rope_interleaved;
  config.attention_bias = arch.attention_bias;
  config.qk_norm = arch.qk_norm;
  return config;
}

std::string FamilyProblem(const Architecture& arch, const ModelConfig& config) {
  struct Option {
    const char* what;
    bool ModelConfig::* flag;
    bool always;
  };
  const Option options[] = {{"attention biases", &ModelConfig::attention_bias, arch.attention_bias},
                            {"head norms", &ModelConfig::qk_norm, arch.qk_norm}};
  for (const Option& option : options) {
    bool possible = false;
    for (const LayerTensor& tensor : arch.layer_tensors) {
      possible = possible || tensor.when == option.flag;
    }
    if (config.*option.flag && !possible) {
      return fmt::format("{}: a {} model has none", option.what, arch.name);
    }
    if (!(config.*option.flag) && option.always) {
      return fmt::format("{}: a {} model always has them", option.what, arch.name);
    }
  }
  return "";
}

const Architecture* FindArchitecture(std::string_view name) {
  for (const Architecture* arch : All()) {
    if (name == arch->name) {
      return arch;
    }
  }
  return nullptr;
}

std::vector<std::string> ArchitectureNames() {
  std::vector<std::string> names;
  for (const Architecture* arch : All()) {
    names.emplace_back(arch->name);
  }
  return names;
}

}  // namespace tandem
