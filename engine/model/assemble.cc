#include "engine/model/assemble.h"

namespace tandem {
namespace {

void TakeLayers(const Architecture& arch, TensorTable& tensors, ModelParts& parts) {
  for (uint32_t i = 0; i < parts.config.n_layers; ++i) {
    const std::string prefix = arch.layer_prefix(LayerIndex{i});
    LayerWeights& layer = parts.layers.emplace_back();
    for (const LayerTensor& tensor : arch.layer_tensors) {
      const uint64_t rows = ExtentOf(tensor.rows, parts.config);
      const uint64_t cols = ExtentOf(tensor.cols, parts.config);
      layer.*tensor.slot = tensor.is_norm ? tensors.TakeNorm(prefix + tensor.name, cols)
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
  parts.token_embedding =
      tensors.Take(arch.token_embedding, parts.config.vocab, parts.config.hidden);
  TakeLayers(arch, tensors, parts);
  parts.output_norm = tensors.TakeNorm(arch.output_norm, parts.config.hidden);
  parts.config.tied_embedding = !tensors.Has(arch.output);
  parts.output = parts.config.tied_embedding
                     ? parts.token_embedding
                     : tensors.Take(arch.output, parts.config.vocab, parts.config.hidden);
  tensors.RefuseRest(arch.reason_unsupported);
}

}  // namespace tandem
