// How fast each pair of a head's dims turns: the rotary scalings of the model families.
//
//   plain    frequency_i = theta^(-2i / d), radians a position, i in [0, d/2), d rotary dimensions
//   linear   frequency_i / scale
//   factors  frequency_i / factor_i: Llama 3's, given by the file or by Llama3RopeFactors
//   YaRN     frequency_i * ((1 - r_i) + r_i / factor), where r_i = clamp((i - low) / (high - low),
//   0, 1)
//            with low = floor(p(beta_fast)), high = ceil(p(beta_slow)), within [0, d - 1],
//            p(turns) = d * ln(original_context / (2 pi turns)) / (2 ln theta);
//            q and k are multiplied by 1 + 0.1 ln(factor)
//
// YaRN: Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models" (2023);
// transformers (_compute_yarn_parameters) and llama.cpp (rope_yarn) compute the same, but that
// llama.cpp leaves the betas at 32 and 1 for these families. Llama 3:
// transformers (_compute_llama3_parameters); llama.cpp's converter stores the same factors as the
// tensor rope_freqs.weight.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/config.h"

namespace tandem {

struct RopeAngles {
  std::vector<double> frequencies;  // (rope_dim / 2); empty: theta^(-2i / rope_dim) / rope_scale
  float magnitude = 1.0f;           // the rotated part of q and k is multiplied by it
};
// REQUIRES: a config without problems.
RopeAngles RopeAnglesOf(const ModelConfig& config);

// rope_scaling of type "llama3", as a config.json states it.
struct Llama3Scaling {
  float factor = 8.0f;
  float low_freq_factor = 1.0f;
  float high_freq_factor = 4.0f;
  uint32_t original_context = 8192;
  bool operator==(const Llama3Scaling&) const = default;
};
// What is wrong with these numbers; empty when nothing is.
std::string Llama3ScalingProblem(const Llama3Scaling& scaling);
// Pairs that turn at least high_freq_factor times within the original context keep their frequency,
// those that turn at most low_freq_factor times are slowed down by `factor`, the others lie
// between:
//   1 / factor_i = (1 - s) / factor + s,  s = (original_context * frequency_i / 2 pi - low) / (high
//   - low)
// REQUIRES: scaling without problems, an even rope_dim and a positive theta.
std::vector<float> Llama3RopeFactors(const Llama3Scaling& scaling, uint32_t rope_dim, float theta);

}  // namespace tandem
