#include "engine/model/rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

namespace tandem {
namespace {

double PlainFrequency(uint32_t pair, uint32_t rope_dim, float theta) {
  return std::pow(double{theta}, -2.0 * pair / rope_dim);
}

// The share of YaRN's interpolation in pair i: 0 for pairs that turn often, 1 for slow ones.
class YarnRamp {
 public:
  YarnRamp(const YarnScaling& yarn, uint32_t rope_dim, float theta) {
    const auto pair_of = [&](float turns) {
      return rope_dim * std::log(yarn.original_context / (2.0 * std::numbers::pi * turns)) /
             (2.0 * std::log(double{theta}));
    };
    low_ = std::max(std::floor(pair_of(yarn.beta_fast)), 0.0);
    high_ = std::min(std::ceil(pair_of(yarn.beta_slow)), rope_dim - 1.0);
  }
  double operator()(uint32_t pair) const {
    return std::clamp((pair - low_) / std::max(high_ - low_, 0.001), 0.0, 1.0);
  }

 private:
  double low_;
  double high_;
};

}  // namespace

RopeAngles RopeAnglesOf(const ModelConfig& config) {
  RopeAngles angles;
  angles.magnitude = config.rope_magnitude;
  if (config.yarn) angles.magnitude *= 1.0f + 0.1f * std::log(config.yarn->factor);
  if (!config.yarn && config.rope_factors.empty()) return angles;
  std::optional<YarnRamp> ramp;
  if (config.yarn) ramp.emplace(*config.yarn, config.rope_dim, config.rope_theta);
  for (uint32_t i = 0; i < config.rope_dim / 2; ++i) {
    double frequency = PlainFrequency(i, config.rope_dim, config.rope_theta) / config.rope_scale;
    if (!config.rope_factors.empty()) frequency /= config.rope_factors[i];
    if (ramp) {
      const double share = (*ramp)(i);
      frequency *= (1.0 - share) + share / config.yarn->factor;
    }
    angles.frequencies.push_back(frequency);
  }
  return angles;
}

std::string Llama3ScalingProblem(const Llama3Scaling& scaling) {
  if (!(scaling.factor >= 1.0f && scaling.factor <= kMaxRopeFactor)) {
    return fmt::format("llama3 factor: {} (want 1 to {})", scaling.factor, kMaxRopeFactor);
  }
  if (!(scaling.low_freq_factor > 0.0f && scaling.high_freq_factor > scaling.low_freq_factor &&
        std::isfinite(scaling.high_freq_factor))) {
    return fmt::format("llama3 frequency factors: low {} and high {} (want 0 < low < high)",
                       scaling.low_freq_factor, scaling.high_freq_factor);
  }
  if (scaling.original_context == 0) return "llama3 original context: 0 (want at least 1)";
  return "";
}

std::vector<float> Llama3RopeFactors(const Llama3Scaling& scaling, uint32_t rope_dim, float theta) {
  std::vector<float> factors;
  for (uint32_t i = 0; i < rope_dim / 2; ++i) {
    const double turns =
        scaling.original_context * PlainFrequency(i, rope_dim, theta) / (2.0 * std::numbers::pi);
    const double low = scaling.low_freq_factor;
    const double share = std::clamp((turns - low) / (scaling.high_freq_factor - low), 0.0, 1.0);
    factors.push_back(static_cast<float>(1.0 / ((1.0 - share) / scaling.factor + share)));
  }
  return factors;
}

}  // namespace tandem
