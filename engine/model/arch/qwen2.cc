// Qwen2 and Qwen2.5, dense: a llama whose q, k and v have biases, and whose rotation pairs are
// (i, i + d/2) as in the original checkpoints.
#include "engine/model/arch/decoder.h"

namespace tandem {
namespace {

constexpr LayerTensor kLayerTensors[] = {kAttnNorm, kWq, kWk,      kWv,   kBq, kBk,
                                         kBv,       kWo, kFfnNorm, kGate, kUp, kDown};

}  // namespace

const Architecture& Qwen2Architecture() {
  static constexpr Architecture kQwen2 = {
      .name = "qwen2",
      .attention_bias = true,
      .read_config = ReadDecoderConfig,
      .write_config = WriteDecoderConfig,
      .layer_prefix = DecoderLayerPrefix,
      .layer_tensors = kLayerTensors,
      .token_embedding = "token_embd.weight",
      .output_norm = "output_norm.weight",
      .output = "output.weight",
      .reason_unsupported = DecoderReasonUnsupported,
  };
  return kQwen2;
}

}  // namespace tandem
