#include "tools/tandem/model_shapes.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/base/human_bytes.h"
#include "engine/model/dtype.h"
#include "engine/rig/rig.h"
#include "tools/tandem/console.h"
#include "tools/tandem/install.h"

namespace tandem {
namespace {

constexpr Bytes kTakesAWhile{uint64_t{1} << 30};

// ("llama-3.1-70b", q4_k) of "llama-3.1-70b-q4_k"; no type where none follows.
std::pair<std::string, std::optional<DType>> SplitType(const std::string& name) {
  const size_t dash = name.rfind('-');
  if (dash == std::string::npos) return {name, std::nullopt};
  const std::optional<DType> type = DTypeFromName(name.substr(dash + 1));
  return type ? std::pair(name.substr(0, dash), type) : std::pair(name, type);
}

bool IsInstalled(const std::string& name) {
  return std::ranges::any_of(InstalledModels(), [&](const auto& m) { return m.first == name; });
}

}  // namespace

std::optional<SyntheticSpec> FindShape(const std::string& name) {
  const Catalogue catalogue(CatalogueRoots());
  const std::vector<std::string> shapes = catalogue.ModelNames();
  const auto known = [&](const std::string& shape) {
    return std::ranges::find(shapes, shape) != shapes.end();
  };
  if (IsInstalled(name)) return std::nullopt;
  if (known(name)) return ParseSyntheticSpec(catalogue.LoadModelShape(name));
  const auto [shape, type] = SplitType(name);
  if (!type || !known(shape)) return std::nullopt;
  SyntheticSpec spec = ParseSyntheticSpec(catalogue.LoadModelShape(shape));
  spec.type = *type;
  // As the catalogue's own quantised shapes have it.
  spec.embedding_type = Traits(*type).quantized ? DType::kQ8_0 : *type;
  return spec;
}

bool IsGenerated(const std::string& value) {
  return value.starts_with("synthetic:") || FindShape(value).has_value();
}

std::shared_ptr<const Model> GenerateModel(const SyntheticSpec& spec, bool shape_only) {
  std::shared_ptr<const Model> shape = MakeShapeOnlyModel(spec);
  if (shape_only) return shape;
  if (shape->weight_bytes() < kTakesAWhile) return MakeSyntheticModel(spec);
  PrintNote(fmt::format("making random weights: {}", WeightsText(*shape)));
  ProgressBar bar;
  return MakeSyntheticModel(spec, [&bar](Bytes done, Bytes all) {
    bar.Update(done.value >> 20, std::max<uint64_t>(all.value >> 20, 1), "MiB of random weights");
  });
}

std::string WeightsText(const Model& model) {
  const std::string bytes = HumanBytes(model.weight_bytes());
  if (model.layers().empty()) return bytes;
  return fmt::format("{}, {}", ToString(model.layers().front().wq.type), bytes);
}

std::string QuantisedHint(const std::string& value, const Model& model) {
  if (!FindShape(value) || model.layers().empty()) return "";
  if (Traits(model.layers().front().wq.type).quantized) return "";
  const std::string name = SplitType(value).first + "-q4_0";
  const std::optional<SyntheticSpec> spec = FindShape(name);
  if (!spec || !SyntheticProblem(*spec).empty()) return "";
  return fmt::format(
      "{} is {} of weights; -m {} takes {}\n"
      "(any weight type may follow a shape's name: -q8_0, -q6_k, -q4_k)",
      value, WeightsText(model), name, HumanBytes(MakeShapeOnlyModel(*spec)->weight_bytes()));
}

}  // namespace tandem
