// Logits to token ids. Greedy is one pass over the row; everything else works on a copy.
//
// Order: repetition, presence and frequency penalties, logit bias, temperature, then top-k, top-p
// and min-p, each on what the one before left, with at least one token kept; ties go to the lowest
// id. The draw is a hash of (seed, token index), so it depends on neither the batch nor the draws
// before it.
//
// Scratch is allocated once; one thread.
//
//   Sampler sampler(vocab);
//   Choice choice = sampler.Choose(logits, params, context, n_prompt, index, logprobs);
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/run/engine.h"
#include "kernels/ops.h"

namespace tandem {

struct Choice {
  int32_t id = 0;
  float logprob = 0;  // of the unpenalised distribution at temperature 1; only when asked for
  std::vector<std::pair<int32_t, float>> top;
};

class Sampler {
 public:
  explicit Sampler(uint32_t vocab);

  // logits (vocab). `context` is prompt and generated tokens, `n_prompt` of them prompt; the draw
  // is number `index`. logprobs as in Request. Throws Error(kFailure) when a logit is not a number,
  // or the largest is infinite.
  Choice Choose(const float* logits, const SamplingParams& params, std::span<const int32_t> context,
                uint32_t n_prompt, uint32_t index, int logprobs);

  // The same id as from all the logits, out of their largest. REQUIRES: as many entries as
  // EntriesToChoose says, or more.
  Choice ChooseAmong(std::span<const TopEntry> entries, const SamplingParams& params,
                     uint32_t index);

 private:
  struct Candidate {
    float value;  // the logit, then its weight exp((logit - max) / temperature)
    int32_t id;
  };
  void Penalise(const SamplingParams& params, std::span<const int32_t> context, uint32_t n_prompt);
  int32_t Draw(const SamplingParams& params, float largest, uint32_t index);  // of candidates_
  void TakeCandidates(uint32_t k);
  void KeepNucleus(double p);
  static bool Better(const Candidate& a, const Candidate& b);  // ties to the lowest id
  void LogProbs(const float* logits, float largest, int count, Choice& choice);

  uint32_t vocab_;
  std::vector<float> row_;        // the penalised copy
  std::vector<uint32_t> counts_;  // of tokens in the context; zero between calls
  std::vector<Candidate> candidates_;
};

// How many of a row's largest logits are enough to choose an id by; 0 where all are needed: for log
// probabilities, penalties, bias, and draws among more tokens than a device gives.
uint32_t EntriesToChoose(const SamplingParams& params, int logprobs);

// Throws Error(kInvalidArgument) naming the field when a parameter is out of its range.
void ValidateSampling(const SamplingParams& params, uint32_t vocab);

// The largest of n logits and its lowest index. `index` is n when a logit is not a number.
struct Largest {
  float value = 0;
  uint32_t index = 0;
};
Largest FindLargest(const float* logits, uint32_t n);

// A number in [0, 1), the same for the same (seed, index) everywhere.
double UniformDraw(uint64_t seed, uint64_t index);

}  // namespace tandem
