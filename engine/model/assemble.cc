#include "engine/model/assemble.h"

#include <cstring>

namespace tandem {
namespace {

// What a family's models may have or not is there when the first layer has a tensor of it.
void DetectOptions(const Architecture& arch, const TensorTable& tensors, ModelConfig& config) {
  for (const LayerTensor& tensor : arch.layer_tensors) {
    if (!tensor.IsIn(config) && tensors.Has(arch.layer_prefix(LayerIndex{0}) + tensor.name)) {
      config.*tensor.when = true;
    }
  }
}

void TakeRopeFactors(const Architecture& arch, TensorTable& tensors, ModelConfig& config) {
  if (arch.rope_factors == nullptr || !tensors.Has(arch.rope_factors)) {
    return;
  }
  const TensorView view = tensors.TakeVector(arch.rope_factors, config.rope_dim / 2);
  config.rope_factors.resize(view.cols);
  std::memcpy(config.rope_factors.data(), view.data, view.bytes());
}

void TakeLayers(const Architecture& arch, TensorTable& tensors, ModelParts& parts) {
  for (uint32_t i = 0; i < parts.config.n_layers; ++i) {
    const std::string prefix = arch.layer_prefix(LayerIndex{i});
    LayerWeights& layer = parts.layers.emplace_back();
    for (const LayerTensor& tensor : arch.layer_tensors) {
      if (!tensor.IsIn(parts.config)) {
        continue;
      }
      const uint64_t rows = ExtentOf(tensor.rows, parts.config);
      const uint64_t cols = ExtentOf(tensor.cols, parts.config);
      layer.*tensor.slot = tensor.IsVector() ? tensors.TakeVector(prefix + tensor.name, cols)
                                             : tensors.Take(prefix + tensor.name, rows, cols);
    }
  }
}

}  // namespace

void TakeWeights(const Architecture& arch, TensorTable& tensors, ModelParts& parts) {
  if (parts.config.vocab == 0) {
    parts.config.vocab = tensors.RowsOf(arch.token_embedding);
  }
  ValidateConfig(parts.config, tensors.source());
  DetectOptions(arch, tensors, parts.config);
  TakeRopeFactors(arch, tensors, parts.config);
  ValidateConfig(parts.config, tensors.source());
  parts.token_embedding =
      tensors.Take(arch.token_embedding, parts.config.vocab, parts.config.hidden);
  TakeLayers(arch, tensors, parts);
  parts.output_norm = tensors.TakeVector(arch.output_norm, parts.config.hidden);
  parts.config.tied_embedding = !tensors.Has(arch.output);
  parts.output = parts.config.tied_embedding
                     ? parts.token_embedding
                     : tensors.Take(arch.output, parts.config.vocab, parts.config.hidden);
  tensors.RefuseRest(arch.reason_unsupported);
}

}  // namespace tandem
