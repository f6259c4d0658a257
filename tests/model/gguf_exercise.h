// Loads bytes as GGUF and, when they load, touches everything the model promises. Shared by the
// mutation test and the fuzzer.
#pragma once

#include <span>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/model/gguf_load.h"
#include "engine/model/inspect.h"
#include "engine/model/stored_model.h"
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

// False when `load` refuses with an Error; anything else that goes wrong ends the process.
template <typename Load>
bool ReadWhatLoads(const Load& load) {
  std::shared_ptr<const Model> model;
  try {
    model = load();
  } catch (const Error&) {
    return false;
  }
  ReadAll(model->token_embedding());
  ReadAll(model->output_norm());
  ReadAll(model->output());
  for (const LayerWeights& layer : model->layers()) {
    for (const auto slot : kLayerSlots) {
      ReadAll(layer.*slot);
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

inline bool LoadAndReadAll(std::span<const std::byte> bytes) {
  return ReadWhatLoads([&] { return LoadGgufBytes(bytes, nullptr, "mutant.gguf"); });
}

}  // namespace tandem
