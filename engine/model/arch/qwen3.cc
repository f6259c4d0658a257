// Qwen3, dense: a llama without biases whose heads of q and k are normalised (RMS over the head)
// before they rotate, in pairs (i, i + d/2). The width of a head is a number of its own.
#include "engine/model/arch/decoder.h"

namespace tandem {
namespace {

constexpr LayerTensor kLayerTensors[] = {kAttnNorm, kWq,      kWk,   kWv, kQNorm, kKNorm,
                                         kWo,       kFfnNorm, kGate, kUp, kDown};

}  // namespace

const Architecture& Qwen3Architecture() {
  static constexpr Architecture kQwen3 = {
      .name = "qwen3",
      .qk_norm = true,
      .read_config = ReadDecoderConfig,
      .write_config = WriteDecoderConfig,
      .layer_prefix = DecoderLayerPrefix,
      .layer_tensors = kLayerTensors,
      .token_embedding = "token_embd.weight",
      .output_norm = "output_norm.weight",
      .output = "output.weight",
      .reason_unsupported = DecoderReasonUnsupported,
  };
  return kQwen3;
}

}  // namespace tandem
