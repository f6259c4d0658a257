// What a model is, for people and scripts: `tandem models show`.
//
//   nlohmann::json about = Describe(*model);      // shape, types and bytes a tensor class,
//   tokenizer std::string text = DescribeModel(*model);     // the same as a few lines
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/model/model.h"

namespace tandem {

// Keys: source, architecture, name, shape {layers, hidden, heads, kv_heads, head_dim, ffn, vocab,
// context, rope_dim, rope_theta, rope_scale, norm_eps, tied_embedding}, parameters, weight_bytes,
// kv_bytes_per_token, tensors [{class, type, count, bytes}], tokenizer (null, or {vocab, bos,
// eos}), chat_template (bool), has_data, blocks [{kind, count, units, elems, elems_per_unit}].
nlohmann::json Describe(const Model& model);

// Elements of every tensor, each counted once: an embedding that is the output as well, too. What
// people call a model's parameters.
uint64_t ParameterCount(const Model& model);

// Lines of text, each ended by a newline.
std::string DescribeModel(const Model& model);

}  // namespace tandem
