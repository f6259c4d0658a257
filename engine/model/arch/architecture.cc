#include "engine/model/arch/architecture.h"

#include "engine/base/check.h"
#include "engine/model/arch/llama.h"

namespace tandem {
namespace {

std::span<const Architecture* const> All() {
  static const Architecture* const kAll[] = {&LlamaArchitecture()};
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
    case Extent::kFfn:
      return config.ffn;
    case Extent::kVocab:
      return config.vocab;
  }
  Check(false, "architecture: no such extent");
  return 0;
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
