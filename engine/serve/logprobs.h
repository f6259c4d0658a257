// Log-probabilities of tokens, from logits, and as the OpenAI protocol writes them.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/tokenizer.h"

namespace tandem {

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;                           // natural log
  std::vector<std::pair<int32_t, float>> top;  // best first
};

// log softmax(logits)[id] and that of the `top` best, ties to the lowest id.
TokenLogprob LogprobOf(std::span<const float> logits, int32_t id, int top);

// One entry of a chat choice's logprobs.content: {"token", "logprob", "bytes", "top_logprobs"}.
// Throws ApiError (500) when the engine gave no number. `tokenizer` may be null.
nlohmann::json ChatLogprob(const Tokenizer* tokenizer, const TokenLogprob& token);

// A completion choice's logprobs, gathered token by token:
// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}.
class CompletionLogprobs {
 public:
  explicit CompletionLogprobs(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}
  // The first token of an echoed prompt has no logprob.
  void AddUnscored(int32_t id);
  void Add(const TokenLogprob& token, bool want_top);
  bool empty() const { return tokens_.empty(); }
  // What was added since the last call; offsets go on counting code points over the whole text.
  nlohmann::json Take();

 private:
  void AddText(int32_t id);

  const Tokenizer* tokenizer_;
  nlohmann::json tokens_ = nlohmann::json::array();
  nlohmann::json logprobs_ = nlohmann::json::array();
  nlohmann::json tops_ = nlohmann::json::array();
  nlohmann::json offsets_ = nlohmann::json::array();
  uint64_t offset_ = 0;
};

}  // namespace tandem
