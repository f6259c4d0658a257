#include "engine/model/huggingface/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/model/arch/architecture.h"
#include "engine/model/gguf.h"
#include "engine/model/rope.h"

namespace tandem {
namespace {

using nlohmann::json;

// What the key sliding_window means to a family.
enum class Window : uint8_t { kNone, kAllLayers, kWhenUsed };

struct Family {
  const char* class_name;    // config.json: architectures
  const char* architecture;  // the table of engine/model/arch
  Window window;
};
constexpr Family kFamilies[] = {
    {"LlamaForCausalLM", "llama", Window::kNone},
    {"MistralForCausalLM", "llama", Window::kAllLayers},
    {"Qwen2ForCausalLM", "qwen2", Window::kWhenUsed},
    {"Qwen3ForCausalLM", "qwen3", Window::kWhenUsed},
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
  for (const char* key : {"quantization_config", "compression_config"}) {
    const json* method = config.Find(key);
    if (method == nullptr) {
      continue;
    }
    config.RefuseUnsupported(
        key, fmt::format("weights quantised by {} (want F32, F16 or BF16, or the model as GGUF)",
                         method->is_object() && method->contains("quant_method")
                             ? QuoteJson(method->at("quant_method"))
                             : "an unnamed method"));
  }
  if (config.FindBool("mlp_bias").value_or(false)) {
    config.RefuseUnsupported("mlp_bias", "true (want false)");
  }
  const std::string activation = config.FindString("hidden_act").value_or("silu");
  if (activation != "silu") {
    config.RefuseUnsupported("hidden_act", QuoteForMessage(activation) + " (want silu)");
  }
  if (config.FindF32("partial_rotary_factor").value_or(1.0f) != 1.0f) {
    config.RefuseUnsupported("partial_rotary_factor", "set (want 1)");
  }
}

float Positive(const JsonFields& fields, const char* key) {
  const std::optional<float> value = fields.FindF32(key);
  if (!value) {
    fields.Refuse(key, "missing (want a number)");
  }
  return *value;
}

void ReadYarn(const JsonFields& scaling, ModelConfig& out) {
  YarnScaling yarn;
  yarn.factor = Positive(scaling, "factor");
  yarn.original_context = scaling.FindU32("original_max_position_embeddings").value_or(out.context);
  yarn.beta_fast = scaling.FindF32("beta_fast").value_or(yarn.beta_fast);
  yarn.beta_slow = scaling.FindF32("beta_slow").value_or(yarn.beta_slow);
  out.yarn = yarn;
  // The magnitude that YaRN gives by itself is 1 + 0.1 ln(factor); the file may state another.
  if (const std::optional<float> magnitude = scaling.FindF32("attention_factor")) {
    out.rope_magnitude = *magnitude / (1.0f + 0.1f * std::log(std::max(yarn.factor, 1.0f)));
  }
  if (!scaling.FindBool("truncate").value_or(true)) {
    scaling.RefuseUnsupported("truncate", "false, but tandem's YaRN does not do this");
  }
  if (scaling.Find("mscale") != nullptr && scaling.Find("mscale_all_dim") != nullptr) {
    scaling.RefuseUnsupported("mscale", "set, but tandem's YaRN does not do this");
  }
}

void ReadLlama3(const JsonFields& scaling, ModelConfig& out) {
  const Llama3Scaling llama3{
      .factor = Positive(scaling, "factor"),
      .low_freq_factor = Positive(scaling, "low_freq_factor"),
      .high_freq_factor = Positive(scaling, "high_freq_factor"),
      .original_context = scaling.RequireU32("original_max_position_embeddings")};
  const std::string problem = Llama3ScalingProblem(llama3);
  if (!problem.empty()) {
    scaling.Refuse("rope_scaling", problem);
  }
  out.rope_factors = Llama3RopeFactors(llama3, out.rope_dim, out.rope_theta);
}

// Newer files may state a rotation for each kind of layer, or one of a part of each head.
void RefuseForeignRope(const JsonFields& scaling, const char* key) {
  for (const char* kind : {"full_attention", "sliding_attention"}) {
    if (scaling.Find(kind) != nullptr) {
      scaling.RefuseUnsupported(key, fmt::format("one for {} (want one for all layers)", kind));
    }
  }
  if (scaling.FindF32("partial_rotary_factor").value_or(1.0f) != 1.0f) {
    scaling.RefuseUnsupported("partial_rotary_factor", "set (want 1)");
  }
}

// Newer files gather rope_theta and the scaling in rope_parameters. REQUIRES: every other number of
// `out` is checked.
void ReadRope(const JsonFields& config, ModelConfig& out) {
  const char* key = config.Find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  const json* object = config.Find(key);
  if (object == nullptr) {
    return;
  }
  const JsonFields scaling(*object, config.source());
  RefuseForeignRope(scaling, key);
  out.rope_theta = scaling.FindF32("rope_theta").value_or(out.rope_theta);
  ValidateConfig(out, config.source());
  const std::string type =
      scaling.FindString("rope_type").value_or(scaling.FindString("type").value_or("default"));
  if (type == "linear") {
    out.rope_scale = Positive(scaling, "factor");
  } else if (type == "yarn") {
    ReadYarn(scaling, out);
  } else if (type == "llama3") {
    ReadLlama3(scaling, out);
  } else if (type != "default") {
    config.RefuseUnsupported(key,
                             QuoteForMessage(type) + " (want linear, yarn, llama3 or default)");
  }
}

// How many layers have a window, by the list of layers that newer files carry; nothing without one.
std::optional<uint32_t> WindowedLayers(const JsonFields& config, uint32_t n_layers) {
  static constexpr char kKey[] = "layer_types";
  const json* kinds = config.Find(kKey);
  if (kinds == nullptr) {
    return std::nullopt;
  }
  if (!kinds->is_array() || kinds->size() != n_layers) {
    config.Refuse(kKey,
                  fmt::format("want an array of one name for each of the {} layers", n_layers));
  }
  uint32_t windowed = 0;
  for (const json& kind : *kinds) {
    if (kind != "full_attention" && kind != "sliding_attention") {
      config.RefuseUnsupported(kKey,
                               QuoteJson(kind) + " (want full_attention or sliding_attention)");
    }
    windowed += kind == "sliding_attention" ? 1 : 0;
  }
  if (windowed != 0 && windowed != n_layers) {
    config.RefuseUnsupported(
        kKey, fmt::format("a window in {} of {} layers (want all or none)", windowed, n_layers));
  }
  return windowed;
}

// Qwen files state a window that use_sliding_window turns on, for the layers of layer_types, or
// else from max_window_layers on (28 where the file does not say, as transformers has it).
void ReadWindow(const JsonFields& config, Window meaning, ModelConfig& out) {
  const uint32_t window = config.FindU32("sliding_window").value_or(0);
  const std::optional<uint32_t> windowed = WindowedLayers(config, out.n_layers);
  if (meaning == Window::kNone && windowed.value_or(0) != 0) {
    config.RefuseUnsupported("layer_types",
                             "sliding_attention (want full_attention in this family)");
  }
  if (meaning == Window::kNone || window == 0) {
    return;
  }
  if (meaning == Window::kAllLayers && windowed == 0u) {
    config.Refuse("layer_types", fmt::format("full_attention, but sliding_window is {}", window));
  }
  if (meaning == Window::kWhenUsed) {
    if (!config.FindBool("use_sliding_window").value_or(false) || windowed == 0u) {
      return;
    }
    const uint32_t first = windowed ? 0 : config.FindU32("max_window_layers").value_or(28);
    if (first >= out.n_layers) {
      return;
    }
    if (first != 0) {
      config.RefuseUnsupported("max_window_layers",
                               fmt::format("{}: a window in some layers (want 0, or at least the "
                                           "{} layers)",
                                           first, out.n_layers));
    }
  }
  out.sliding_window = window;
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
  const Architecture* arch = FindArchitecture(family.architecture);
  Check(arch != nullptr, "huggingface: a family without a table");
  ModelConfig out = FamilyConfig(*arch);
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
  out.rope_theta = config.FindF32("rope_theta").value_or(10000.0f);
  out.norm_eps = config.FindF32("rms_norm_eps").value_or(1e-6f);
  out.tied_embedding = config.FindBool("tie_word_embeddings").value_or(false);
  out.rope_interleaved = false;
  ValidateConfig(out, config.source());
  ReadRope(config, out);
  ReadWindow(config, family.window, out);
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

bool IsOutputBias(std::string_view huggingface_name) {
  return huggingface_name.ends_with(".self_attn.o_proj.bias");
}

bool IsDerivedTensor(std::string_view huggingface_name) {
  return huggingface_name.ends_with(".rotary_emb.inv_freq");
}

}  // namespace tandem
