#include "engine/model/config.h"

#include <fmt/format.h>

#include <cmath>

#include "engine/base/error.h"

namespace tandem {
namespace {

// Far above any model, and low enough that no product of a few of them leaves 64 bits.
struct Limit {
  const char* field;
  uint32_t ModelConfig::* value;
  uint32_t most;
};
constexpr Limit kLimits[] = {
    {"layers", &ModelConfig::n_layers, 1u << 14},
    {"hidden width", &ModelConfig::hidden, 1u << 18},
    {"attention heads", &ModelConfig::n_heads, 1u << 14},
    {"KV heads", &ModelConfig::n_kv_heads, 1u << 14},
    {"head width", &ModelConfig::head_dim, 1u << 12},
    {"FFN width", &ModelConfig::ffn, 1u << 20},
    {"vocabulary", &ModelConfig::vocab, 1u << 24},
    {"context", &ModelConfig::context, 1u << 30},
    {"rotary dimensions", &ModelConfig::rope_dim, 1u << 12},
};

bool IsPositive(float value) { return std::isfinite(value) && value > 0.0f; }

std::string YarnProblem(const ModelConfig& config) {
  const YarnScaling& yarn = *config.yarn;
  if (!(yarn.factor >= 1.0f && yarn.factor <= kMaxRopeFactor)) {
    return fmt::format("YaRN factor: {} (want 1 to {})", yarn.factor, kMaxRopeFactor);
  }
  if (yarn.original_context == 0 || yarn.original_context > 1u << 30) {
    return fmt::format("YaRN original context: {} (want 1 to {})", yarn.original_context, 1u << 30);
  }
  if (!IsPositive(yarn.beta_slow) || !IsPositive(yarn.beta_fast) ||
      yarn.beta_slow > yarn.beta_fast) {
    return fmt::format("YaRN betas: fast {} and slow {} (want 0 < slow <= fast)", yarn.beta_fast,
                       yarn.beta_slow);
  }
  if (config.rope_theta <= 1.0f) {
    return fmt::format("rotary base: {} (want more than 1 with YaRN)", config.rope_theta);
  }
  return "";
}

std::string RopeProblem(const ModelConfig& config) {
  if (config.rope_dim % 2 != 0 || config.rope_dim > config.head_dim) {
    return fmt::format("rotary dimensions: {} (want an even number, at most the head width {})",
                       config.rope_dim, config.head_dim);
  }
  if (!IsPositive(config.rope_theta)) {
    return fmt::format("rotary base: {} (want a positive number)", config.rope_theta);
  }
  if (!IsPositive(config.rope_scale)) {
    return fmt::format("rotary scale: {} (want a positive number)", config.rope_scale);
  }
  if (!IsPositive(config.rope_magnitude) || config.rope_magnitude > kMaxRopeFactor) {
    return fmt::format("rotary attention factor: {} (want more than 0, at most {})",
                       config.rope_magnitude, kMaxRopeFactor);
  }
  if (!config.rope_factors.empty() && config.rope_factors.size() != config.rope_dim / 2) {
    return fmt::format("rotary frequency factors: {} (want one for each of the {} pairs)",
                       config.rope_factors.size(), config.rope_dim / 2);
  }
  for (size_t i = 0; i < config.rope_factors.size(); ++i) {
    const float factor = config.rope_factors[i];
    if (!IsPositive(factor) || factor > kMaxRopeFactor || factor < 1.0f / kMaxRopeFactor) {
      return fmt::format("rotary frequency factor {}: {} (want {} to {})", i, factor,
                         1.0f / kMaxRopeFactor, kMaxRopeFactor);
    }
  }
  return config.yarn ? YarnProblem(config) : "";
}

}  // namespace

std::string ConfigProblem(const ModelConfig& config) {
  for (const Limit& limit : kLimits) {
    const uint32_t value = config.*limit.value;
    if (value == 0 || value > limit.most) {
      return fmt::format("{}: {} (want 1 to {})", limit.field, value, limit.most);
    }
  }
  if (config.n_heads % config.n_kv_heads != 0) {
    return fmt::format("attention heads: {} (want a multiple of the {} KV heads)", config.n_heads,
                       config.n_kv_heads);
  }
  const std::string rope = RopeProblem(config);
  if (!rope.empty()) {
    return rope;
  }
  if (config.sliding_window > 1u << 30) {
    return fmt::format("sliding window: {} (want 0 for none, or 1 to {})", config.sliding_window,
                       1u << 30);
  }
  if (!IsPositive(config.norm_eps) || config.norm_eps >= 1.0f) {
    return fmt::format("norm epsilon: {} (want more than 0 and less than 1)", config.norm_eps);
  }
  return "";
}

void ValidateConfig(const ModelConfig& config, const std::string& source) {
  const std::string problem = ConfigProblem(config);
  if (!problem.empty()) {
    Fail(ErrorCode::kModelFile, fmt::format("model: {}: {}", source, problem));
  }
}

}  // namespace tandem
