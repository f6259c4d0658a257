#include "engine/model/arch/llama.h"

#include <fmt/format.h>

#include "engine/base/error.h"

namespace tandem {
namespace {

constexpr char kName[] = "llama";

// Keys that change the arithmetic in ways tandem does not do. Harmless when absent, zero or false.
constexpr const char* kForeignNumbers[] = {
    "llama.expert_count",
    "llama.expert_used_count",
    "llama.attention.sliding_window",
    "llama.attention.max_alibi_bias",
    "llama.attention.clamp_kqv",
    "llama.attention.scale",
    "llama.attn_logit_softcapping",
    "llama.final_logit_softcapping",
    "llama.logit_scale",
    "llama.residual_scale",
    "llama.embedding_scale",
};

[[noreturn]] void RefuseKey(const GgufMetadata& metadata, const char* key, const std::string& why) {
  Fail(ErrorCode::kUnsupported, fmt::format("gguf: {}: {}: {}", metadata.source(), key, why));
}

bool IsZero(const GgufValue& value) {
  for (const std::byte b : value.payload) {
    if (b != std::byte{0}) {
      return false;
    }
  }
  return true;
}

void RefuseForeignKeys(const GgufMetadata& metadata) {
  for (const char* key : kForeignNumbers) {
    const GgufValue* value = metadata.Find(key);
    if (value != nullptr && !IsZero(*value)) {
      RefuseKey(metadata, key, "set, but tandem's llama does not do this");
    }
  }
  if (metadata.FindBool("llama.use_parallel_residual").value_or(false)) {
    RefuseKey(metadata, "llama.use_parallel_residual", "true (want false)");
  }
  if (!metadata.FindBool("llama.attention.causal").value_or(true)) {
    RefuseKey(metadata, "llama.attention.causal", "false (want true)");
  }
}

uint32_t HeadDim(const GgufMetadata& metadata, const ModelConfig& config) {
  static constexpr char kKey[] = "llama.attention.key_length";
  const std::optional<uint32_t> key = metadata.FindU32(kKey);
  const std::optional<uint32_t> value = metadata.FindU32("llama.attention.value_length");
  if (!key && (config.n_heads == 0 || config.hidden % config.n_heads != 0)) {
    metadata.Refuse("llama.attention.head_count",
                    fmt::format("{} (want a divisor of the hidden width {}, or {})", config.n_heads,
                                config.hidden, kKey));
  }
  const uint32_t head_dim = key ? *key : config.hidden / config.n_heads;
  if (value && *value != head_dim) {
    RefuseKey(metadata, "llama.attention.value_length",
              fmt::format("{} (want the key's width {})", *value, head_dim));
  }
  return head_dim;
}

// Linear scaling divides positions by a factor; every other kind is refused by its name.
float RopeScale(const GgufMetadata& metadata) {
  static constexpr char kTypeKey[] = "llama.rope.scaling.type";
  static constexpr char kFactorKey[] = "llama.rope.scaling.factor";
  const float old_linear = metadata.FindF32("llama.rope.scale_linear").value_or(1.0f);
  const std::optional<float> factor = metadata.FindF32(kFactorKey);
  const std::string type = metadata.FindString(kTypeKey).value_or(factor ? "linear" : "none");
  if (type != "none" && type != "linear") {
    RefuseKey(metadata, kTypeKey, fmt::format("{} (want linear or none)", QuoteForMessage(type)));
  }
  const float scale = type == "linear" ? factor.value_or(old_linear) : old_linear;
  // Files write a factor of 0 for "no scaling".
  return scale == 0.0f ? 1.0f : scale;
}

ModelConfig ReadConfig(const GgufMetadata& metadata) {
  RefuseForeignKeys(metadata);
  ModelConfig config;
  config.architecture = kName;
  config.name = metadata.FindString("general.name").value_or("");
  config.n_layers = metadata.RequireU32("llama.block_count");
  config.context = metadata.RequireU32("llama.context_length");
  config.hidden = metadata.RequireU32("llama.embedding_length");
  config.ffn = metadata.RequireU32("llama.feed_forward_length");
  config.n_heads = metadata.RequireU32("llama.attention.head_count");
  config.n_kv_heads = metadata.FindU32("llama.attention.head_count_kv").value_or(config.n_heads);
  config.head_dim = HeadDim(metadata, config);
  config.rope_dim = metadata.FindU32("llama.rope.dimension_count").value_or(config.head_dim);
  config.rope_theta = metadata.FindF32("llama.rope.freq_base").value_or(10000.0f);
  config.rope_scale = RopeScale(metadata);
  config.norm_eps = metadata.RequireF32("llama.attention.layer_norm_rms_epsilon");
  config.vocab = metadata.FindU32("llama.vocab_size").value_or(0);
  config.rope_interleaved = true;
  return config;
}

void WriteConfig(const ModelConfig& config, GgufWriter& writer) {
  if (!config.rope_interleaved) {
    Fail(ErrorCode::kUnsupported,
         "gguf: a llama file holds rotation pairs side by side (want interleaved=1)");
  }
  writer.AddU32("llama.block_count", config.n_layers);
  writer.AddU32("llama.context_length", config.context);
  writer.AddU32("llama.embedding_length", config.hidden);
  writer.AddU32("llama.feed_forward_length", config.ffn);
  writer.AddU32("llama.attention.head_count", config.n_heads);
  writer.AddU32("llama.attention.head_count_kv", config.n_kv_heads);
  writer.AddU32("llama.attention.key_length", config.head_dim);
  writer.AddU32("llama.attention.value_length", config.head_dim);
  writer.AddU32("llama.rope.dimension_count", config.rope_dim);
  writer.AddF32("llama.rope.freq_base", config.rope_theta);
  if (config.rope_scale != 1.0f) {
    writer.AddString("llama.rope.scaling.type", "linear");
    writer.AddF32("llama.rope.scaling.factor", config.rope_scale);
  }
  writer.AddF32("llama.attention.layer_norm_rms_epsilon", config.norm_eps);
  writer.AddU32("llama.vocab_size", config.vocab);
}

std::string LayerPrefix(LayerIndex layer) { return fmt::format("blk.{}.", layer.value); }

const char* ReasonUnsupported(std::string_view name) {
  if (name == "rope_freqs.weight" || name.ends_with("rope_factors_long.weight") ||
      name.ends_with("rope_factors_short.weight")) {
    return "rotary frequency factors (as in Llama 3.1 and later) are not supported";
  }
  if (name.ends_with(".bias")) {
    return "biases are not supported";
  }
  if (name.find("_exps.") != std::string_view::npos ||
      name.find("ffn_gate_inp") != std::string_view::npos) {
    return "mixtures of experts are not supported";
  }
  return "it is not part of a llama model as tandem knows it";
}

constexpr LayerTensor kLayerTensors[] = {
    {"attn_norm.weight", &LayerWeights::attn_norm, Extent::kOne, Extent::kHidden, true},
    {"attn_q.weight", &LayerWeights::wq, Extent::kQuery, Extent::kHidden, false},
    {"attn_k.weight", &LayerWeights::wk, Extent::kKeyValue, Extent::kHidden, false},
    {"attn_v.weight", &LayerWeights::wv, Extent::kKeyValue, Extent::kHidden, false},
    {"attn_output.weight", &LayerWeights::wo, Extent::kHidden, Extent::kQuery, false},
    {"ffn_norm.weight", &LayerWeights::ffn_norm, Extent::kOne, Extent::kHidden, true},
    {"ffn_gate.weight", &LayerWeights::w_gate, Extent::kFfn, Extent::kHidden, false},
    {"ffn_up.weight", &LayerWeights::w_up, Extent::kFfn, Extent::kHidden, false},
    {"ffn_down.weight", &LayerWeights::w_down, Extent::kHidden, Extent::kFfn, false},
};

}  // namespace

const Architecture& LlamaArchitecture() {
  static constexpr Architecture kLlama = {
      .name = kName,
      .read_config = ReadConfig,
      .write_config = WriteConfig,
      .layer_prefix = LayerPrefix,
      .layer_tensors = kLayerTensors,
      .token_embedding = "token_embd.weight",
      .output_norm = "output_norm.weight",
      .output = "output.weight",
      .reason_unsupported = ReasonUnsupported,
  };
  return kLlama;
}

}  // namespace tandem
