// The last step of loading, the same for every container: the architecture's table takes its
// tensors by name, and what is left over is refused.
#pragma once

#include <memory>

#include "engine/model/arch/architecture.h"
#include "engine/model/stored_model.h"
#include "engine/model/tensor_table.h"

namespace tandem {

// Fills parts.layers, token_embedding, output_norm and output, and the vocabulary's size and
// tied_embedding of parts.config, whose other fields are set. Throws
// Error(kModelFile | kUnsupported).
void TakeWeights(const Architecture& arch, TensorTable& tensors, ModelParts& parts);

}  // namespace tandem
