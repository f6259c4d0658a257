#include "engine/model/arch/decoder.h"

#include <fmt/format.h>

#include <cmath>

#include "engine/base/error.h"

namespace tandem {
namespace {

// Keys that change the arithmetic in ways tandem does not do. Harmless when absent, zero or false.
constexpr const char* kForeignNumbers[] = {
    "expert_count",
    "expert_used_count",
    "attention.max_alibi_bias",
    "attention.clamp_kqv",
    "attention.scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "rope.scaling.yarn_log_multiplier",
};

// Reads one family's keys.
class Keys {
 public:
  Keys(const char* arch, const GgufMetadata& metadata) : arch_(arch), metadata_(metadata) {}

  std::string Name(const char* key) const { return fmt::format("{}.{}", arch_, key); }
  uint32_t U32(const char* key) const { return metadata_.RequireU32(Name(key)); }
  float F32(const char* key) const { return metadata_.RequireF32(Name(key)); }
  std::optional<uint32_t> MaybeU32(const char* key) const { return metadata_.FindU32(Name(key)); }
  std::optional<float> MaybeF32(const char* key) const { return metadata_.FindF32(Name(key)); }
  std::optional<std::string> MaybeString(const char* key) const {
    return metadata_.FindString(Name(key));
  }

  // The file is as it should be; tandem does not do what it asks for.
  [[noreturn]] void Unsupported(const std::string& key, const std::string& why) const {
    Fail(ErrorCode::kUnsupported, fmt::format("gguf: {}: {}: {}", metadata_.source(), key, why));
  }
  [[noreturn]] void Refuse(const char* key, const std::string& why) const {
    metadata_.Refuse(Name(key), why);
  }

  void RefuseForeign() const {
    for (const char* key : kForeignNumbers) {
      const GgufValue* value = metadata_.Find(Name(key));
      if (value != nullptr && !IsZero(*value)) {
        Unsupported(Name(key), fmt::format("set, but tandem's {} does not do this", arch_));
      }
    }
    if (metadata_.FindBool(Name("use_parallel_residual")).value_or(false)) {
      Unsupported(Name("use_parallel_residual"), "true (want false)");
    }
    if (!metadata_.FindBool(Name("attention.causal")).value_or(true)) {
      Unsupported(Name("attention.causal"), "false (want true)");
    }
  }

 private:
  static bool IsZero(const GgufValue& value) {
    for (const std::byte b : value.payload) {
      if (b != std::byte{0}) {
        return false;
      }
    }
    return true;
  }

  const char* arch_;
  const GgufMetadata& metadata_;
};

uint32_t HeadDim(const Keys& keys, const ModelConfig& config) {
  const std::optional<uint32_t> key = keys.MaybeU32("attention.key_length");
  const std::optional<uint32_t> value = keys.MaybeU32("attention.value_length");
  if (!key && (config.n_heads == 0 || config.hidden % config.n_heads != 0)) {
    keys.Refuse("attention.head_count",
                fmt::format("{} (want a divisor of the hidden width {}, or {})", config.n_heads,
                            config.hidden, keys.Name("attention.key_length")));
  }
  const uint32_t head_dim = key ? *key : config.hidden / config.n_heads;
  if (value && *value != head_dim) {
    keys.Unsupported(keys.Name("attention.value_length"),
                     fmt::format("{} (want the key's width {})", *value, head_dim));
  }
  return head_dim;
}

// YaRN's parts that its readers take differently: only what all of them take alike is accepted. A
// negative mix and a factor of 1 stand for "not set"; 1 + 0.1 ln(factor) is what it then becomes.
void RequireUsualYarn(const Keys& keys, float factor) {
  const char* mix_key = "rope.scaling.yarn_ext_factor";
  const float mix = keys.MaybeF32(mix_key).value_or(1.0f);
  if (mix >= 0.0f && mix != 1.0f) {
    keys.Unsupported(keys.Name(mix_key), fmt::format("{} (want 1)", mix));
  }
  const char* attn_key = "rope.scaling.yarn_attn_factor";
  const float usual = 1.0f + 0.1f * std::log(factor);
  const float attn = keys.MaybeF32(attn_key).value_or(1.0f);
  if (attn != 1.0f && !(std::fabs(attn - usual) < 1e-3f)) {
    keys.Unsupported(keys.Name(attn_key), fmt::format("{} (want {:.4f}, which is 1 + 0.1 ln of the "
                                                      "factor, or 1)",
                                                      attn, usual));
  }
}

// Linear scaling divides positions by a factor, YaRN mixes that with the frequencies as they are;
// every other kind is refused by its name.
void ReadRopeScaling(const Keys& keys, ModelConfig& config) {
  const float old_linear = keys.MaybeF32("rope.scale_linear").value_or(1.0f);
  const std::optional<float> factor = keys.MaybeF32("rope.scaling.factor");
  const std::string type =
      keys.MaybeString("rope.scaling.type").value_or(factor ? "linear" : "none");
  config.rope_magnitude = keys.MaybeF32("rope.scaling.attn_factor").value_or(1.0f);
  if (type == "yarn") {
    YarnScaling yarn;
    yarn.factor = keys.F32("rope.scaling.factor");
    RequireUsualYarn(keys, yarn.factor);
    yarn.original_context =
        keys.MaybeU32("rope.scaling.original_context_length").value_or(config.context);
    yarn.beta_fast = keys.MaybeF32("rope.scaling.yarn_beta_fast").value_or(yarn.beta_fast);
    yarn.beta_slow = keys.MaybeF32("rope.scaling.yarn_beta_slow").value_or(yarn.beta_slow);
    config.yarn = yarn;
    return;
  }
  if (type != "none" && type != "linear") {
    keys.Unsupported(keys.Name("rope.scaling.type"),
                     fmt::format("{} (want linear, yarn or none)", QuoteForMessage(type)));
  }
  const float scale = type == "linear" ? factor.value_or(old_linear) : old_linear;
  // Files write a factor of 0 for "no scaling".
  config.rope_scale = scale == 0.0f ? 1.0f : scale;
}

void WriteRopeScaling(const std::string& prefix, const ModelConfig& config, GgufWriter& writer) {
  if (config.yarn) {
    writer.AddString(prefix + "rope.scaling.type", "yarn");
    writer.AddF32(prefix + "rope.scaling.factor", config.yarn->factor);
    writer.AddU32(prefix + "rope.scaling.original_context_length", config.yarn->original_context);
    writer.AddF32(prefix + "rope.scaling.yarn_beta_fast", config.yarn->beta_fast);
    writer.AddF32(prefix + "rope.scaling.yarn_beta_slow", config.yarn->beta_slow);
  } else if (config.rope_scale != 1.0f) {
    writer.AddString(prefix + "rope.scaling.type", "linear");
    writer.AddF32(prefix + "rope.scaling.factor", config.rope_scale);
  }
  if (config.rope_magnitude != 1.0f) {
    writer.AddF32(prefix + "rope.scaling.attn_factor", config.rope_magnitude);
  }
}

}  // namespace

ModelConfig ReadDecoderConfig(const Architecture& arch, const GgufMetadata& metadata) {
  const Keys keys(arch.name, metadata);
  keys.RefuseForeign();
  ModelConfig config = FamilyConfig(arch);
  config.name = metadata.FindString("general.name").value_or("");
  config.n_layers = keys.U32("block_count");
  config.context = keys.U32("context_length");
  config.hidden = keys.U32("embedding_length");
  config.ffn = keys.U32("feed_forward_length");
  config.n_heads = keys.U32("attention.head_count");
  config.n_kv_heads = keys.MaybeU32("attention.head_count_kv").value_or(config.n_heads);
  config.head_dim = HeadDim(keys, config);
  config.rope_dim = keys.MaybeU32("rope.dimension_count").value_or(config.head_dim);
  config.rope_theta = keys.MaybeF32("rope.freq_base").value_or(10000.0f);
  ReadRopeScaling(keys, config);
  config.norm_eps = keys.F32("attention.layer_norm_rms_epsilon");
  // Files write 0 for "no window".
  config.sliding_window = keys.MaybeU32("attention.sliding_window").value_or(0);
  config.vocab = keys.MaybeU32("vocab_size").value_or(0);
  return config;
}

void WriteDecoderConfig(const Architecture& arch, const ModelConfig& config, GgufWriter& writer) {
  if (config.rope_interleaved != arch.rope_interleaved) {
    Fail(ErrorCode::kUnsupported,
         fmt::format("gguf: a {} file holds rotation pairs {} (want interleaved={})", arch.name,
                     arch.rope_interleaved ? "side by side" : "half a head apart",
                     arch.rope_interleaved ? 1 : 0));
  }
  const std::string prefix = fmt::format("{}.", arch.name);
  writer.AddU32(prefix + "block_count", config.n_layers);
  writer.AddU32(prefix + "context_length", config.context);
  writer.AddU32(prefix + "embedding_length", config.hidden);
  writer.AddU32(prefix + "feed_forward_length", config.ffn);
  writer.AddU32(prefix + "attention.head_count", config.n_heads);
  writer.AddU32(prefix + "attention.head_count_kv", config.n_kv_heads);
  writer.AddU32(prefix + "attention.key_length", config.head_dim);
  writer.AddU32(prefix + "attention.value_length", config.head_dim);
  writer.AddU32(prefix + "rope.dimension_count", config.rope_dim);
  writer.AddF32(prefix + "rope.freq_base", config.rope_theta);
  WriteRopeScaling(prefix, config, writer);
  if (config.sliding_window != 0) {
    writer.AddU32(prefix + "attention.sliding_window", config.sliding_window);
  }
  writer.AddF32(prefix + "attention.layer_norm_rms_epsilon", config.norm_eps);
  writer.AddU32(prefix + "vocab_size", config.vocab);
}

std::string DecoderLayerPrefix(LayerIndex layer) { return fmt::format("blk.{}.", layer.value); }

const char* DecoderReasonUnsupported(std::string_view name) {
  if (name.ends_with("rope_freqs.weight") || name.ends_with("rope_factors_long.weight") ||
      name.ends_with("rope_factors_short.weight")) {
    return "rotary frequency factors of this kind are not supported";
  }
  if (name.ends_with(".bias")) {
    return "biases here are not supported";
  }
  if (name.find("_exps.") != std::string_view::npos ||
      name.find("ffn_gate_inp") != std::string_view::npos) {
    return "mixtures of experts are not supported";
  }
  return "it is not part of this architecture as tandem knows it";
}

}  // namespace tandem
