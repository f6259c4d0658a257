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
