// What a Hugging Face model directory calls things: config.json's keys, and the names of tensors.
// One spelling serves every family that tandem knows, so it stands here and not in each family's
// file.
#pragma once

#include <string>
#include <string_view>

#include "engine/model/config.h"
#include "engine/model/huggingface/bounded_json.h"

namespace tandem {

// config.json as a configuration; rotation pairs lie half a head apart in these files. Sets
// tied_embedding. Throws Error(kModelFile | kUnsupported) naming the key.
ModelConfig ReadHuggingFaceConfig(const JsonFields& config);

// "blk.3.attn_q.weight" is "model.layers.3.self_attn.q_proj.weight" there. A name without a
// counterpart is itself.
std::string HuggingFaceTensorName(std::string_view name);

// The bias of attention's output, "...self_attn.o_proj.bias", which tandem has no place for.
bool IsOutputBias(std::string_view huggingface_name);

// Stored by some files, but no weight: "...rotary_emb.inv_freq".
bool IsDerivedTensor(std::string_view huggingface_name);

}  // namespace tandem
