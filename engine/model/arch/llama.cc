// Llama: RMS norm, grouped-query attention with rotary positions, gated SiLU MLP. Covers Llama 1 to
// 3.x, TinyLlama, SmolLM and Mistral, whose files all call themselves "llama". Their q and k rows
// are permuted so that rotation pairs (2i, 2i+1) are adjacent; Llama 3.1 and later bring the
// factors of their frequencies as a tensor; biases of q, k and v are rare and all or nothing.
#include "engine/model/arch/decoder.h"

namespace tandem {
namespace {

constexpr LayerTensor kLayerTensors[] = {kAttnNorm, kWq, kWk,      kWv,   kBq, kBk,
                                         kBv,       kWo, kFfnNorm, kGate, kUp, kDown};

}  // namespace

const Architecture& LlamaArchitecture() {
  static constexpr Architecture kLlama = {
      .name = "llama",
      .rope_interleaved = true,
      .read_config = ReadDecoderConfig,
      .write_config = WriteDecoderConfig,
      .layer_prefix = DecoderLayerPrefix,
      .layer_tensors = kLayerTensors,
      .token_embedding = "token_embd.weight",
      .output_norm = "output_norm.weight",
      .output = "output.weight",
      .rope_factors = "rope_freqs.weight",
      .reason_unsupported = DecoderReasonUnsupported,
  };
  return kLlama;
}

}  // namespace tandem
