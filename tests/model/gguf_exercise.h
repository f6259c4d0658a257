// Loads bytes as GGUF and, when they load, touches everything the model promises. Shared by the
// mutation test and the fuzzer.
#pragma once

#include <span>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/model/gguf_load.h"
#include "engine/model/inspect.h"
#include "engine/model/tokenizer.h"

namespace tandem {

inline void ReadAll(const TensorView& view) {
  std::vector<float> row(view.cols);
  for (uint64_t r = 0; r < view.rows; ++r) {
    DequantizeRow(view.type, view.row(r), row.data(), view.cols);
  }
}

inline Bytes SumOfBlocks(const Model& model) {
  Bytes sum;
  for (const Block& block : model.blocks().blocks) {
    sum += block.norm_bytes + block.head_norm_bytes;
    if (block.kind != BlockKind::kHead || !model.blocks().tied) {
      sum += block.UnitBytes(block.AllUnits());
    }
  }
  return sum;
}

// False when refused with an Error; anything else that goes wrong ends the process.
inline bool LoadAndReadAll(std::span<const std::byte> bytes) {
  std::shared_ptr<const Model> model;
  try {
    model = LoadGgufBytes(bytes, nullptr, "mutant.gguf");
  } catch (const Error&) {
    return false;
  }
  ReadAll(model->token_embedding());
  ReadAll(model->output_norm());
  ReadAll(model->output());
  for (const LayerWeights& layer : model->layers()) {
    for (const TensorView& view :
         {layer.attn_norm, layer.wq, layer.wk, layer.wv, layer.wo, layer.ffn_norm, layer.w_gate,
          layer.w_up, layer.w_down, layer.bq, layer.bk, layer.bv, layer.q_norm, layer.k_norm}) {
      ReadAll(view);
    }
  }
  Check(SumOfBlocks(*model) == model->weight_bytes(), "blocks must add up to the weights");
  Check(
      !DescribeModel(*model).empty() &&
          !Describe(*model).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).empty(),
      "a model can be described");
  if (model->tokenizer() != nullptr) {
    model->tokenizer()->Encode("abc <s>", {.parse_special = true});
  }
  return true;
}

}  // namespace tandem
