// Qwen2 and Qwen2.5, dense: a llama whose q, k and v have biases, and whose rotation pairs are
// (i, i + d/2) as in the original checkpoints.
#include "engine/model/arch/decoder.h"

namespace tandem {

const Architecture& Qwen2Architecture() {
  static constexpr Architecture kQwen2 = [] {
    Architecture arch = kDecoder;
    arch.name = "qwen2";
    arch.attention_bias = true;
    arch.layer_tensors = kBiasedLayer;
    return arch;
  }();
  return kQwen2;
}

}  // namespace tandem
