#include "engine/run/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "engine/base/error.h"

namespace tandem {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr uint32_t kLanes = 16;
constexpr const char* kNan = "a logit is not a number";
constexpr const char* kInfinite = "the largest logit is infinite";

// The finaliser of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
// generators").
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

bool Penalises(const SamplingParams& params) {
  return params.repetition_penalty != 1.0 || params.presence_penalty != 0.0 ||
         params.frequency_penalty != 0.0 || !params.logit_bias.empty();
}

[[noreturn]] void FailLogits(const char* what) {
  Fail(ErrorCode::kFailure,
       fmt::format("sampler: {}; the model's weights may be damaged, or its activations overflow: "
                   "try --activations f32 and check the model file",
                   what));
}

}  // namespace

double UniformDraw(uint64_t seed, uint64_t index) {
  const uint64_t bits = Mix(Mix(seed) ^ (index * 0xd1342543de82ef95u));
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

Largest FindLargest(const float* logits, uint32_t n) {
  // Lanes that the compiler keeps in vector registers; the order does not matter to a maximum.
  std::array<float, kLanes> most;
  most.fill(kMinusInfinity);
  std::array<int32_t, kLanes> nan{};
  uint32_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      const float x = logits[i + lane];
      most[lane] = x > most[lane] ? x : most[lane];
      nan[lane] |= x != x ? 1 : 0;
    }
  }
  float largest = kMinusInfinity;
  bool any_nan = false;
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    largest = std::max(largest, most[lane]);
    any_nan = any_nan || nan[lane] != 0;
  }
  for (; i < n; ++i) {
    any_nan = any_nan || logits[i] != logits[i];
    if (logits[i] > largest) largest = logits[i];
  }
  if (any_nan) return Largest{largest, n};
  const float* at = std::find(logits, logits + n, largest);
  return Largest{largest, static_cast<uint32_t>(at - logits)};
}

bool Sampler::Better(const Candidate& a, const Candidate& b) {
  return a.value != b.value ? a.value > b.value : a.id < b.id;
}

Sampler::Sampler(uint32_t vocab) : vocab_(vocab), row_(vocab), counts_(vocab, 0) {
  candidates_.reserve(vocab);
}

Choice Sampler::Choose(const float* logits, const SamplingParams& params,
                       std::span<const int32_t> context, uint32_t n_prompt, uint32_t index,
                       int logprobs) {
  const Largest plain = FindLargest(logits, vocab_);
  if (plain.index == vocab_) FailLogits(kNan);
  if (!std::isfinite(plain.value)) FailLogits(kInfinite);
  const bool penalised = Penalises(params);
  Choice choice;
  choice.id = static_cast<int32_t>(plain.index);
  if (penalised || params.temperature > 0) {
    std::copy_n(logits, vocab_, row_.begin());
    if (penalised) Penalise(params, context, n_prompt);
    const Largest best = penalised ? FindLargest(row_.data(), vocab_) : plain;
    if (best.index == vocab_ || !std::isfinite(best.value)) {
      FailLogits("penalties and bias leave no token that can be chosen");
    }
    choice.id = static_cast<int32_t>(best.index);
    if (params.temperature > 0) {
      TakeCandidates(params.top_k);
      choice.id = Draw(params, best.value, index);
    }
  }
  if (logprobs >= 0) LogProbs(logits, plain.value, logprobs, choice);
  return choice;
}

uint32_t EntriesToChoose(const SamplingParams& params, int logprobs) {
  if (logprobs >= 0 || Penalises(params)) return 0;
  if (params.temperature <= 0) return 1;
  // One more than is drawn among says whether there were more.
  return params.top_k > 0 && params.top_k < kMostTopK ? params.top_k + 1 : 0;
}

Choice Sampler::ChooseAmong(std::span<const TopEntry> entries, const SamplingParams& params,
                            uint32_t index) {
  const TopEntry& best = entries.front();
  if (best.id == kNotANumber) FailLogits(kNan);
  if (!std::isfinite(best.value)) FailLogits(kInfinite);
  Choice choice;
  choice.id = best.id;
  if (params.temperature <= 0) return choice;
  candidates_.clear();
  for (const TopEntry& entry : entries.first(EntriesToChoose(params, -1))) {
    if (entry.id < 0 || entry.value == kMinusInfinity) break;
    candidates_.push_back(Candidate{entry.value, entry.id});
  }
  // As TakeCandidates leaves them: the best in order, or all of them by id.
  if (candidates_.size() > params.top_k) {
    candidates_.resize(params.top_k);
  } else {
    std::sort(candidates_.begin(), candidates_.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  }
  choice.id = Draw(params, best.value, index);
  return choice;
}

void Sampler::Penalise(const SamplingParams& params, std::span<const int32_t> context,
                       uint32_t n_prompt) {
  if (params.repetition_penalty != 1.0) {
    const auto penalty = static_cast<float>(params.repetition_penalty);
    for (int32_t id : context) {
      const auto at = static_cast<size_t>(id);
      if (counts_[at]++ > 0) continue;
      row_[at] = row_[at] > 0 ? row_[at] / penalty : row_[at] * penalty;
    }
    for (int32_t id : context) counts_[static_cast<size_t>(id)] = 0;
  }
  if (params.presence_penalty != 0.0 || params.frequency_penalty != 0.0) {
    const auto presence = static_cast<float>(params.presence_penalty);
    const auto frequency = static_cast<float>(params.frequency_penalty);
    const std::span<const int32_t> generated = context.subspan(n_prompt);
    for (int32_t id : generated) ++counts_[static_cast<size_t>(id)];
    for (int32_t id : generated) {
      uint32_t& count = counts_[static_cast<size_t>(id)];
      if (count == 0) continue;
      row_[static_cast<size_t>(id)] -= presence + frequency * static_cast<float>(count);
      count = 0;
    }
  }
  for (const auto& [id, bias] : params.logit_bias) row_[static_cast<size_t>(id)] += bias;
}

// Keeps the best k of row_ as candidates, in order; all of them, in order of id, when k is 0. A
// token that cannot be drawn (minus infinity) is no candidate.
void Sampler::TakeCandidates(uint32_t k) {
  candidates_.clear();
  for (uint32_t id = 0; id < vocab_; ++id) {
    if (row_[id] > kMinusInfinity) {
      candidates_.push_back(Candidate{row_[id], static_cast<int32_t>(id)});
    }
  }
  if (k == 0 || k >= candidates_.size()) return;
  const auto kth = candidates_.begin() + k;
  std::nth_element(candidates_.begin(), kth, candidates_.end(), Better);
  candidates_.erase(kth, candidates_.end());
  std::sort(candidates_.begin(), candidates_.end(), Better);
}

// Keeps the fewest best candidates whose weights reach p of the total, in order.
void Sampler::KeepNucleus(double p) {
  double total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.value;
  const double wanted = p * total;
  // Sorts the head of the order in growing pieces: a nucleus is usually small, a vocabulary is not.
  double sum = 0;
  size_t kept = 0;
  for (size_t sorted = 64; kept < candidates_.size(); sorted *= 8) {
    const size_t end = std::min(sorted, candidates_.size());
    std::partial_sort(candidates_.begin() + static_cast<ptrdiff_t>(kept),
                      candidates_.begin() + static_cast<ptrdiff_t>(end), candidates_.end(), Better);
    while (kept < end && (kept == 0 || sum < wanted)) sum += candidates_[kept++].value;
    if (kept < end) break;
  }
  candidates_.resize(kept);
}

int32_t Sampler::Draw(const SamplingParams& params, float largest, uint32_t index) {
  for (Candidate& candidate : candidates_) {
    const double scaled = (static_cast<double>(candidate.value) - largest) / params.temperature;
    candidate.value = std::exp(static_cast<float>(scaled));
  }
  if (params.top_p < 1.0) KeepNucleus(params.top_p);
  if (params.min_p > 0) {
    // The largest weight is exp(0) = 1.
    const auto least = static_cast<float>(params.min_p);
    std::erase_if(candidates_, [least](const Candidate& c) { return c.value < least; });
  }
  double total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.value;
  const double wanted = UniformDraw(params.seed, index) * total;
  double sum = 0;
  int32_t last = candidates_.back().id;
  for (const Candidate& candidate : candidates_) {
    if (candidate.value <= 0) continue;
    sum += candidate.value;
    last = candidate.id;
    if (sum > wanted) break;
  }
  return last;
}

void Sampler::LogProbs(const float* logits, float largest, int count, Choice& choice) {
  double total = 0;
  for (uint32_t id = 0; id < vocab_; ++id) total += std::exp(logits[id] - largest);
  const double log_total = std::log(total) + largest;
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(static_cast<double>(logits[id]) - log_total);
  };
  choice.logprob = logprob(choice.id);
  candidates_.clear();
  for (uint32_t id = 0; id < vocab_; ++id) {
    candidates_.push_back(Candidate{logits[id], static_cast<int32_t>(id)});
  }
  const size_t wanted = std::min<size_t>(static_cast<size_t>(count), vocab_);
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(wanted),
                    candidates_.end(), Better);
  for (size_t i = 0; i < wanted; ++i) {
    choice.top.emplace_back(candidates_[i].id, logprob(candidates_[i].id));
  }
}

void ValidateSampling(const SamplingParams& params, uint32_t vocab) {
  const auto refuse = [](const char* field, double got, const char* want) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("sampling: {} is {} (want {})", field, got, want));
  };
  const auto finite = [&](const char* field, double value) {
    if (!std::isfinite(value)) refuse(field, value, "a finite number");
  };
  if (!(params.temperature >= 0) || !std::isfinite(params.temperature)) {
    refuse("temperature", params.temperature, "a finite number of at least 0");
  }
  if (!(params.top_p >= 0 && params.top_p <= 1)) refuse("top_p", params.top_p, "0 to 1");
  if (!(params.min_p >= 0 && params.min_p <= 1)) refuse("min_p", params.min_p, "0 to 1");
  if (!(params.repetition_penalty > 0) || !std::isfinite(params.repetition_penalty)) {
    refuse("repetition_penalty", params.repetition_penalty, "a finite number above 0");
  }
  finite("presence_penalty", params.presence_penalty);
  finite("frequency_penalty", params.frequency_penalty);
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0 || static_cast<uint32_t>(id) >= vocab) {
      refuse("logit_bias token", id, "an id of the vocabulary");
    }
    // Minus infinity is how a token is banned.
    if (std::isnan(bias) || bias == -kMinusInfinity) refuse("logit_bias", bias, "a number");
  }
}

}  // namespace tandem
