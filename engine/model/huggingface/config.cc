#include "engine/model/huggingface/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "engine/base/error.h"
#include "engine/model/gguf.h"

namespace tandem {
namespace {

using nlohmann::json;

struct Family {
  const char* class_name;    // config.json: architectures
  const char* architecture;  // the table of engine/model/arch
};
constexpr Family kFamilies[] = {
    {"LlamaForCausalLM", "llama"},
    {"MistralForCausalLM", "llama"},
};

const Family& FamilyOf(const JsonFields& config) {
  static constexpr char kKey[] = "architectures";
  const json* classes = config.Find(kKey);
  if (classes == nullptr || !classes->is_array() || classes->size() != 1 ||
      !classes->at(0).is_string()) {
    config.Refuse(kKey, "want one class name in an array, such as [\"LlamaForCausalLM\"]");
  }
  const std::string name = classes->at(0).get<std::string>();
  std::vector<std::string> known;
  for (const Family& family : kFamilies) {
    if (name == family.class_name) {
      return family;
    }
    known.emplace_back(family.class_name);
  }
  config.RefuseUnsupported(
      kKey, fmt::format("{} (tandem knows {})", QuoteForMessage(name), fmt::join(known, ", ")));
}

// Keys that change the arithmetic in ways tandem does not do. Harmless when absent, null or false.
void RefuseForeignKeys(const JsonFields& config) {
  if (const json* method = config.Find("quantization_config")) {
    config.RefuseUnsupported(
        "quantization_config",
        fmt::format("weights quantised by {} (want F32, F16 or BF16, or the model as GGUF)",
                    method->is_object() && method->contains("quant_method")
                        ? QuoteJson(method->at("quant_method"))
                        : "an unnamed method"));
  }
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (config.FindBool(key).value_or(false)) {
      config.RefuseUnsupported(key, "true, but biases are not supported here");
    }
  }
  const std::string activation = config.FindString("hidden_act").value_or("silu");
  if (activation != "silu") {
    config.RefuseUnsupported("hidden_act", QuoteForMessage(activation) + " (want silu)");
  }
  if (config.FindF32("partial_rotary_factor").value_or(1.0f) != 1.0f) {
    config.RefuseUnsupported("partial_rotary_factor", "set (want 1)");
  }
}

// Newer files gather rope_theta and the scaling in rope_parameters.
void ReadRope(const JsonFields& config, ModelConfig& out) {
  out.rope_theta = config.FindF32("rope_theta").value_or(10000.0f);
  const char* key = config.Find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  const json* object = config.Find(key);
  if (object == nullptr) {
    return;
  }
  const JsonFields scaling(*object, config.source());
  out.rope_theta = scaling.FindF32("rope_theta").value_or(out.rope_theta);
  const std::string type =
      scaling.FindString("rope_type").value_or(scaling.FindString("type").value_or("default"));
  if (type == "linear") {
    out.rope_scale = scaling.FindF32("factor").value_or(1.0f);
  } else if (type != "default") {
    config.RefuseUnsupported(key, QuoteForMessage(type) + " (want linear or default)");
  }
}

struct Name {
  std::string_view own;
  std::string_view huggingface;
};
constexpr Name kModelNames[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};
// Without the layer's prefix and the ending (".weight", ".bias").
constexpr Name kLayerNames[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};

}  // namespace

ModelConfig ReadHuggingFaceConfig(const JsonFields& config) {
  const Family& family = FamilyOf(config);
  RefuseForeignKeys(config);
  ModelConfig out;
  out.architecture = family.architecture;
  out.name = config.FindString("_name_or_path").value_or("");
  out.n_layers = config.RequireU32("num_hidden_layers");
  out.hidden = config.RequireU32("hidden_size");
  out.ffn = config.RequireU32("intermediate_size");
  out.n_heads = config.RequireU32("num_attention_heads");
  out.n_kv_heads = config.FindU32("num_key_value_heads").value_or(out.n_heads);
  out.vocab = config.RequireU32("vocab_size");
  out.context = config.RequireU32("max_position_embeddings");
  const std::optional<uint32_t> head_dim = config.FindU32("head_dim");
  if (!head_dim && (out.n_heads == 0 || out.hidden % out.n_heads != 0)) {
    config.Refuse("num_attention_heads", fmt::format("{} (want a divisor of hidden_size {}, or "
                                                     "head_dim)",
                                                     out.n_heads, out.hidden));
  }
  out.head_dim = head_dim ? *head_dim : out.hidden / out.n_heads;
  out.rope_dim = out.head_dim;
  ReadRope(config, out);
  out.norm_eps = config.FindF32("rms_norm_eps").value_or(1e-6f);
  out.tied_embedding = config.FindBool("tie_word_embeddings").value_or(false);
  out.rope_interleaved = false;
  if (config.FindU32("sliding_window").value_or(out.context) < out.context) {
    config.RefuseUnsupported("sliding_window", "smaller than the context");
  }
  ValidateConfig(out, config.source());
  return out;
}

std::string HuggingFaceTensorName(std::string_view name) {
  for (const Name& entry : kModelNames) {
    if (name == entry.own) {
      return std::string(entry.huggingface);
    }
  }
  static constexpr std::string_view kPrefix = "blk.";
  const size_t begin = kPrefix.size();
  const size_t dot = name.starts_with(kPrefix) ? name.find('.', begin) : std::string_view::npos;
  const size_t ending = name.rfind('.');
  if (dot == std::string_view::npos || ending <= dot) {
    return std::string(name);
  }
  const std::string_view stem = name.substr(dot + 1, ending - dot - 1);
  for (const Name& entry : kLayerNames) {
    if (stem == entry.own) {
      return fmt::format("model.layers.{}.{}{}", name.substr(begin, dot - begin), entry.huggingface,
                         name.substr(ending));
    }
  }
  return std::string(name);
}

bool IsDerivedTensor(std::string_view huggingface_name) {
  return huggingface_name.ends_with(".rotary_emb.inv_freq");
}

}  // namespace tandem
