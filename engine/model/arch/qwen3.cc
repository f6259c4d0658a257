// Qwen3, dense: a llama without biases whose heads of q and k are normalised (RMS over the head)
// before they rotate, in pairs (i, i + d/2). The width of a head is a number of its own.
#include "engine/model/arch/decoder.h"

namespace tandem {
namespace {

constexpr LayerTensor kNormedHeadsLayer[] = {kAttnNorm, kWq,      kWk,   kWv, kQNorm, kKNorm,
                                             kWo,       kFfnNorm, kGate, kUp, kDown};

}  // namespace

const Architecture& Qwen3Architecture() {
  static constexpr Architecture kQwen3 = [] {
    Architecture arch = kDecoder;
    arch.name = "qwen3";
    arch.qk_norm = true;
    arch.layer_tensors = kNormedHeadsLayer;
    return arch;
  }();
  return kQwen3;
}

}  // namespace tandem
