#include "engine/serve/logprobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/serve/api_error.h"

namespace tandem {
namespace {

using nlohmann::json;

// What clients of the protocol take for minus infinity, which JSON cannot say.
constexpr double kNoProbability = -9999.0;

double Writable(float logprob) {
  if (std::isnan(logprob)) {
    throw ApiError(500, "server_error", "the model produced a logit that is not a number");
  }
  return std::isinf(logprob) ? kNoProbability : logprob;
}

std::string Bytes(const Tokenizer* tokenizer, int32_t id) {
  if (tokenizer == nullptr) return "";
  std::string bytes = tokenizer->TokenBytes(id);
  return bytes.empty() ? tokenizer->TokenBytes(id, true) : bytes;
}

bool IsUtf8(const std::string& bytes) {
  // The JSON writer is the judge of what it can write.
  try {
    json(bytes).dump();
    return true;
  } catch (const json::exception&) {
    return false;
  }
}

// The token as text; part of a code point is spelled as the protocol does: "bytes:\xe2\x96".
std::string TextOf(const Tokenizer* tokenizer, int32_t id) {
  if (tokenizer == nullptr) return fmt::format("token_id:{}", id);
  std::string bytes = Bytes(tokenizer, id);
  if (IsUtf8(bytes)) return bytes;
  std::string text = "bytes:";
  for (unsigned char c : bytes) text += fmt::format("\\x{:02x}", c);
  return text;
}

json ByteArray(const std::string& bytes) {
  json array = json::array();
  for (unsigned char c : bytes) array.push_back(c);
  return array;
}

}  // namespace

TokenLogprob LogprobOf(std::span<const float> logits, int32_t id, int top) {
  float best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit - best);
  float log_sum = best + static_cast<float>(std::log(sum));
  TokenLogprob result{.id = id, .logprob = logits[static_cast<size_t>(id)] - log_sum};
  if (top <= 0) return result;
  std::vector<int32_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  size_t count = std::min(static_cast<size_t>(top), order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                    [&](int32_t a, int32_t b) {
                      float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  for (size_t i = 0; i < count; ++i) {
    result.top.emplace_back(order[i], logits[static_cast<size_t>(order[i])] - log_sum);
  }
  return result;
}

json ChatLogprob(const Tokenizer* tokenizer, const TokenLogprob& token) {
  auto entry = [&](int32_t id, float logprob) {
    return json{{"token", TextOf(tokenizer, id)},
                {"logprob", Writable(logprob)},
                {"bytes", ByteArray(Bytes(tokenizer, id))}};
  };
  json result = entry(token.id, token.logprob);
  result["top_logprobs"] = json::array();
  for (const auto& [id, logprob] : token.top) result["top_logprobs"].push_back(entry(id, logprob));
  return result;
}

void CompletionLogprobs::AddText(int32_t id) {
  tokens_.push_back(TextOf(tokenizer_, id));
  offsets_.push_back(offset_);
  // Code points are counted by their first bytes, so a token inside one adds nothing.
  std::string bytes = tokenizer_ == nullptr ? "" : tokenizer_->TokenBytes(id);
  for (unsigned char c : bytes) offset_ += (c & 0xC0) != 0x80;
}

void CompletionLogprobs::AddUnscored(int32_t id) {
  AddText(id);
  logprobs_.push_back(nullptr);
  tops_.push_back(nullptr);
}

void CompletionLogprobs::Add(const TokenLogprob& token, bool want_top) {
  AddText(token.id);
  logprobs_.push_back(Writable(token.logprob));
  json top = json::object();
  for (const auto& [id, logprob] : token.top) top[TextOf(tokenizer_, id)] = Writable(logprob);
  tops_.push_back(want_top ? std::move(top) : json());
}

json CompletionLogprobs::Take() {
  json result{{"tokens", std::move(tokens_)},
              {"token_logprobs", std::move(logprobs_)},
              {"top_logprobs", std::move(tops_)},
              {"text_offset", std::move(offsets_)}};
  tokens_ = logprobs_ = tops_ = offsets_ = json::array();
  return result;
}

}  // namespace tandem
