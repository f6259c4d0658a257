#include "engine/model/stored_model.h"

#include <mutex>

namespace tandem {
namespace {

std::vector<BlockTypes> TypesOf(const ModelParts& parts) {
  std::vector<BlockTypes> types(parts.layers.size() + 1);
  types[0].embedding = parts.token_embedding.type;
  types[0].output = parts.output.type;
  for (size_t i = 0; i < parts.layers.size(); ++i) {
    const LayerWeights& layer = parts.layers[i];
    types[i + 1] = BlockTypes{.wq = layer.wq.type,
                              .wk = layer.wk.type,
                              .wv = layer.wv.type,
                              .wo = layer.wo.type,
                              .gate = layer.w_gate.type,
                              .up = layer.w_up.type,
                              .down = layer.w_down.type};
  }
  return types;
}

Bytes SizeOf(const ModelParts& parts) {
  Bytes sum{parts.token_embedding.bytes() + parts.output_norm.bytes()};
  if (!parts.config.tied_embedding) {
    sum += Bytes{parts.output.bytes()};
  }
  for (const LayerWeights& layer : parts.layers) {
    for (const TensorView LayerWeights::* slot : kLayerSlots) {
      sum += Bytes{(layer.*slot).bytes()};
    }
  }
  return sum;
}

class StoredModel final : public Model {
 public:
  explicit StoredModel(ModelParts parts)
      : parts_(std::move(parts)),
        blocks_(BuildBlockGraph(parts_.config, TypesOf(parts_))),
        weight_bytes_(SizeOf(parts_)) {}

  const ModelConfig& config() const override { return parts_.config; }
  const std::vector<LayerWeights>& layers() const override { return parts_.layers; }
  const TensorView& token_embedding() const override { return parts_.token_embedding; }
  const TensorView& output_norm() const override { return parts_.output_norm; }
  const TensorView& output() const override { return parts_.output; }
  const BlockGraph& blocks() const override { return blocks_; }
  bool has_data() const override { return parts_.has_data; }
  const Tokenizer* tokenizer() const override { return parts_.tokenizer.get(); }
  const std::string& chat_template() const override { return parts_.chat_template; }
  const std::string& source() const override { return parts_.source; }
  Bytes weight_bytes() const override { return weight_bytes_; }

  const std::string& weights_hash() const override {
    std::call_once(hashed_, [this] { hash_ = parts_.hash(); });
    return hash_;
  }

 private:
  ModelParts parts_;
  BlockGraph blocks_;
  Bytes weight_bytes_;
  mutable std::once_flag hashed_;
  mutable std::string hash_;
};

}  // namespace

std::shared_ptr<const Model> MakeStoredModel(ModelParts parts) {
  return std::make_shared<StoredModel>(std::move(parts));
}

}  // namespace tandem
