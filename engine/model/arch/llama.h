// The Llama family: RMS norm, grouped-query attention with rotary positions, gated SiLU MLP, no
// biases. Covers Llama 1 to 3, TinyLlama, SmolLM and Mistral files that call themselves "llama".
#pragma once

#include "engine/model/arch/architecture.h"

namespace tandem {

const Architecture& LlamaArchitecture();

}  // namespace tandem
