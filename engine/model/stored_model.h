// The one Model there is: parts that a loader or generator has put together. It owns whatever
// memory the views point into, builds the block graph and sums the sizes.
//
//   ModelParts parts{.config = config, ...};
//   return MakeStoredModel(std::move(parts));
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "engine/model/tokenizer.h"

namespace tandem {

// Every tensor of a layer, in the order in which files and memory hold them.
inline constexpr std::array<TensorView LayerWeights::*, 14> kLayerSlots = {
    &LayerWeights::attn_norm, &LayerWeights::wq,    &LayerWeights::wk,       &LayerWeights::wv,
    &LayerWeights::bq,        &LayerWeights::bk,    &LayerWeights::bv,       &LayerWeights::q_norm,
    &LayerWeights::k_norm,    &LayerWeights::wo,    &LayerWeights::ffn_norm, &LayerWeights::w_gate,
    &LayerWeights::w_up,      &LayerWeights::w_down};

struct ModelParts {
  ModelConfig config;
  std::vector<LayerWeights> layers;
  TensorView token_embedding;
  TensorView output_norm;
  TensorView output;
  bool has_data = true;
  std::shared_ptr<const void> memory;    // keeps the views alive
  std::unique_ptr<Tokenizer> tokenizer;  // may be null
  std::string chat_template;
  std::string source;
  std::function<std::string()> hash;  // computes Model::weights_hash, called at most once
};

// REQUIRES: a config without problems and views of its shapes. Throws Error(kUnsupported) where the
// block graph cannot cut the tensors.
std::shared_ptr<const Model> MakeStoredModel(ModelParts parts);

}  // namespace tandem
