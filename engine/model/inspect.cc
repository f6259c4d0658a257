#include "engine/model/inspect.h"

#include <fmt/format.h>

#include <optional>
#include <string_view>
#include <vector>

#include "engine/model/tokenizer.h"

namespace tandem {
namespace {

using nlohmann::json;

struct TensorClass {
  const char* name;
  DType type;
  uint64_t count = 0;
  uint64_t bytes = 0;
};

// Tensors of one name and type together, in the order in which a pass through the model meets them.
class TensorSummary {
 public:
  void Add(const char* name, const TensorView& view) {
    elems_ += view.rows * view.cols;
    for (TensorClass& entry : classes_) {
      if (entry.name == std::string_view(name) && entry.type == view.type) {
        ++entry.count;
        entry.bytes += view.bytes();
        return;
      }
    }
    classes_.push_back({name, view.type, 1, view.bytes()});
  }

  uint64_t elems() const { return elems_; }
  const std::vector<TensorClass>& classes() const { return classes_; }

 private:
  uint64_t elems_ = 0;
  std::vector<TensorClass> classes_;
};

void AddIfThere(TensorSummary& summary, const char* name, const TensorView& view) {
  if (view.rows > 0) {
    summary.Add(name, view);
  }
}

TensorSummary Summarize(const Model& model) {
  TensorSummary summary;
  summary.Add("token_embedding", model.token_embedding());
  for (const LayerWeights& layer : model.layers()) {
    summary.Add("attn_norm", layer.attn_norm);
    summary.Add("wq", layer.wq);
    summary.Add("wk", layer.wk);
    summary.Add("wv", layer.wv);
    AddIfThere(summary, "bq", layer.bq);
    AddIfThere(summary, "bk", layer.bk);
    AddIfThere(summary, "bv", layer.bv);
    AddIfThere(summary, "q_norm", layer.q_norm);
    AddIfThere(summary, "k_norm", layer.k_norm);
    summary.Add("wo", layer.wo);
    summary.Add("ffn_norm", layer.ffn_norm);
    summary.Add("w_gate", layer.w_gate);
    summary.Add("w_up", layer.w_up);
    summary.Add("w_down", layer.w_down);
  }
  summary.Add("output_norm", model.output_norm());
  if (!model.config().tied_embedding) {
    summary.Add("output", model.output());
  }
  return summary;
}

// What is scaled and how, in words; empty when nothing is.
std::string RopeScalingName(const ModelConfig& config) {
  std::string name;
  if (config.rope_scale != 1.0f) {
    name += fmt::format("linear {}", config.rope_scale);
  }
  if (config.yarn) {
    name += fmt::format("YaRN {} from {}", config.yarn->factor, config.yarn->original_context);
  }
  if (!config.rope_factors.empty()) {
    name += fmt::format("{}factors for each pair", name.empty() ? "" : ", ");
  }
  return name;
}

json DescribeShape(const ModelConfig& config) {
  return {{"layers", config.n_layers},
          {"hidden", config.hidden},
          {"heads", config.n_heads},
          {"kv_heads", config.n_kv_heads},
          {"head_dim", config.head_dim},
          {"ffn", config.ffn},
          {"vocab", config.vocab},
          {"context", config.context},
          {"rope_dim", config.rope_dim},
          {"rope_theta", config.rope_theta},
          {"rope_scale", config.rope_scale},
          {"rope_scaling", RopeScalingName(config)},
          {"sliding_window", config.sliding_window},
          {"attention_bias", config.attention_bias},
          {"qk_norm", config.qk_norm},
          {"norm_eps", config.norm_eps},
          {"tied_embedding", config.tied_embedding}};
}

// A line of what a plain llama does not have; empty when there is nothing.
std::string DescribeExtras(const ModelConfig& config) {
  std::vector<std::string> extras;
  if (config.attention_bias) {
    extras.emplace_back("biases of q, k and v");
  }
  if (config.qk_norm) {
    extras.emplace_back("normalised heads");
  }
  if (config.sliding_window > 0) {
    extras.push_back(fmt::format("a window of {} positions", config.sliding_window));
  }
  const std::string scaling = RopeScalingName(config);
  if (!scaling.empty()) {
    extras.push_back(fmt::format("rotary scaling: {}", scaling));
  }
  return extras.empty() ? "" : fmt::format("  attention   {}\n", fmt::join(extras, ", "));
}

json DescribeTokenizer(const Tokenizer* tokenizer) {
  if (tokenizer == nullptr) {
    return nullptr;
  }
  const auto id_or_null = [](std::optional<int32_t> id) { return id ? json(*id) : json(nullptr); };
  return {{"vocab", tokenizer->vocab_size()},
          {"bos", id_or_null(tokenizer->bos())},
          {"eos", id_or_null(tokenizer->eos())}};
}

// Blocks that are cut alike are counted together.
json DescribeBlocks(const BlockGraph& graph) {
  json blocks = json::array();
  for (const Block& block : graph.blocks) {
    const json entry = {{"kind", ToString(block.kind)},
                        {"units", block.units},
                        {"elems", block.elems},
                        {"elems_per_unit", block.elems_per_unit}};
    bool found = false;
    for (json& known : blocks) {
      if (known["kind"] == entry["kind"] && known["units"] == entry["units"]) {
        known["count"] = known["count"].get<uint64_t>() + 1;
        found = true;
      }
    }
    if (!found) {
      blocks.push_back(entry);
      blocks.back()["count"] = 1;
    }
  }
  return blocks;
}

uint64_t KvBytesPerToken(const BlockGraph& graph) {
  uint64_t bytes = 0;
  for (const Block& block : graph.blocks) {
    bytes += block.KvBytesPerToken(block.AllUnits()).value;
  }
  return bytes;
}

}  // namespace

uint64_t ParameterCount(const Model& model) { return Summarize(model).elems(); }

json Describe(const Model& model) {
  const TensorSummary summary = Summarize(model);
  json tensors = json::array();
  for (const TensorClass& entry : summary.classes()) {
    tensors.push_back({{"class", entry.name},
                       {"type", ToString(entry.type)},
                       {"count", entry.count},
                       {"bytes", entry.bytes}});
  }
  return {{"source", model.source()},
          {"architecture", model.config().architecture},
          {"name", model.config().name},
          {"shape", DescribeShape(model.config())},
          {"parameters", summary.elems()},
          {"weight_bytes", model.weight_bytes().value},
          {"kv_bytes_per_token", KvBytesPerToken(model.blocks())},
          {"tensors", tensors},
          {"tokenizer", DescribeTokenizer(model.tokenizer())},
          {"chat_template", !model.chat_template().empty()},
          {"has_data", model.has_data()},
          {"blocks", DescribeBlocks(model.blocks())}};
}

std::string DescribeModel(const Model& model) {
  const ModelConfig& config = model.config();
  const TensorSummary summary = Summarize(model);
  std::string text = fmt::format("{}\n", model.source());
  if (!config.name.empty()) {
    text += fmt::format("  name        {}\n", config.name);
  }
  text += fmt::format(
      "  shape       {}: {} layers, hidden {}, {} heads over {} KV heads of {}, FFN {}, "
      "vocabulary {}, context {}\n",
      config.architecture, config.n_layers, config.hidden, config.n_heads, config.n_kv_heads,
      config.head_dim, config.ffn, config.vocab, config.context);
  text += fmt::format("  weights     {} parameters, {} bytes, {} embedding\n", summary.elems(),
                      model.weight_bytes().value, config.tied_embedding ? "tied" : "untied");
  text += fmt::format("  KV          {} bytes a token (f16)\n", KvBytesPerToken(model.blocks()));
  text += DescribeExtras(config);
  const Tokenizer* tokenizer = model.tokenizer();
  text += fmt::format("  tokenizer   {}\n",
                      tokenizer == nullptr ? std::string("none: prompts are token ids")
                                           : fmt::format("{} tokens", tokenizer->vocab_size()));
  text += fmt::format("  template    {}\n", model.chat_template().empty() ? "none" : "chat");
  for (const TensorClass& entry : summary.classes()) {
    text += fmt::format("  {:<16}{:<6}{:>5} x {:>12} bytes in all\n", entry.name,
                        ToString(entry.type), entry.count, entry.bytes);
  }
  return text;
}

}  // namespace tandem
