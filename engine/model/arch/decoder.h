// What the families' files have in common: one set of metadata keys after the architecture's name
// ("llama.block_count", "qwen3.block_count"), and the layer tensors that all of them hold. A
// family's own file says how it differs.
#pragma once

#include <string>

#include "engine/model/arch/architecture.h"

namespace tandem {

// Architecture::read_config and write_config of a family whose keys are the common ones.
ModelConfig ReadDecoderConfig(const Architecture& arch, const GgufMetadata& metadata);
void WriteDecoderConfig(const Architecture& arch, const ModelConfig& config, GgufWriter& writer);

std::string DecoderLayerPrefix(LayerIndex layer);  // "blk.3."

// Of a tensor outside the tables.
const char* DecoderReasonUnsupported(std::string_view tensor_name);

// A family whose files follow all of the above: what its own file does not set.
inline constexpr Architecture kDecoder = {
    .read_config = ReadDecoderConfig,
    .write_config = WriteDecoderConfig,
    .layer_prefix = DecoderLayerPrefix,
    .token_embedding = "token_embd.weight",
    .output_norm = "output_norm.weight",
    .output = "output.weight",
    .reason_unsupported = DecoderReasonUnsupported,
};

// The nine tensors of any layer, for a family's list.
inline constexpr LayerTensor kAttnNorm = {"attn_norm.weight", &LayerWeights::attn_norm,
                                          Extent::kOne, Extent::kHidden, TensorRole::kNorm};
inline constexpr LayerTensor kWq = {"attn_q.weight", &LayerWeights::wq, Extent::kQuery,
                                    Extent::kHidden};
inline constexpr LayerTensor kWk = {"attn_k.weight", &LayerWeights::wk, Extent::kKeyValue,
                                    Extent::kHidden};
inline constexpr LayerTensor kWv = {"attn_v.weight", &LayerWeights::wv, Extent::kKeyValue,
                                    Extent::kHidden};
inline constexpr LayerTensor kWo = {"attn_output.weight", &LayerWeights::wo, Extent::kHidden,
                                    Extent::kQuery};
inline constexpr LayerTensor kFfnNorm = {"ffn_norm.weight", &LayerWeights::ffn_norm, Extent::kOne,
                                         Extent::kHidden, TensorRole::kNorm};
inline constexpr LayerTensor kGate = {"ffn_gate.weight", &LayerWeights::w_gate, Extent::kFfn,
                                      Extent::kHidden};
inline constexpr LayerTensor kUp = {"ffn_up.weight", &LayerWeights::w_up, Extent::kFfn,
                                    Extent::kHidden};
inline constexpr LayerTensor kDown = {"ffn_down.weight", &LayerWeights::w_down, Extent::kHidden,
                                      Extent::kFfn};

// Biases of q, k and v.
inline constexpr LayerTensor kBq = {"attn_q.bias",     &LayerWeights::bq,
                                    Extent::kOne,      Extent::kQuery,
                                    TensorRole::kBias, &ModelConfig::attention_bias};
inline constexpr LayerTensor kBk = {"attn_k.bias",     &LayerWeights::bk,
                                    Extent::kOne,      Extent::kKeyValue,
                                    TensorRole::kBias, &ModelConfig::attention_bias};
inline constexpr LayerTensor kBv = {"attn_v.bias",     &LayerWeights::bv,
                                    Extent::kOne,      Extent::kKeyValue,
                                    TensorRole::kBias, &ModelConfig::attention_bias};
// Norms of each head of q and k.
inline constexpr LayerTensor kQNorm = {"attn_q_norm.weight", &LayerWeights::q_norm,
                                       Extent::kOne,         Extent::kHeadDim,
                                       TensorRole::kNorm,    &ModelConfig::qk_norm};
inline constexpr LayerTensor kKNorm = {"attn_k_norm.weight", &LayerWeights::k_norm,
                                       Extent::kOne,         Extent::kHeadDim,
                                       TensorRole::kNorm,    &ModelConfig::qk_norm};

// A layer whose q, k and v may have biases.
inline constexpr LayerTensor kBiasedLayer[] = {kAttnNorm, kWq, kWk,      kWv,   kBq, kBk,
                                               kBv,       kWo, kFfnNorm, kGate, kUp, kDown};

}  // namespace tandem
