// Llama: RMS norm, grouped-query attention with rotary positions, gated SiLU MLP. Covers Llama 1 to
// 3.x, TinyLlama, SmolLM and Mistral, whose files all call themselves "llama". Their q and k rows
// are permuted so that rotation pairs (2i, 2i+1) are adjacent; Llama 3.1 and later bring the
// factors of their frequencies as a tensor; biases of q, k and v are rare and all or nothing.
#include "engine/model/arch/decoder.h"

namespace tandem {

const Architecture& LlamaArchitecture() {
  static constexpr Architecture kLlama = [] {
    Architecture arch = kDecoder;
    arch.name = "llama";
    arch.rope_interleaved = true;
    arch.layer_tensors = kBiasedLayer;
    arch.rope_factors = "rope_freqs.weight";
    return arch;
  }();
  return kLlama;
}

}  // namespace tandem
