// The OpenAI protocol's requests, parsed and checked: what leaves here is within bounds. Fields
// that would change the answer and are not supported are a 400 naming them; other unknown fields
// are ignored, as every server of this protocol does.
//
// Pure functions; any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/model/chat_template.h"
#include "engine/run/engine.h"

namespace tandem {

inline constexpr int64_t kMaxChoicesPerPrompt = 8;  // n
inline constexpr size_t kMaxPrompts = 64;
inline constexpr size_t kMaxChoices = 64;  // prompts * n
inline constexpr size_t kMaxStops = 16;
inline constexpr size_t kMaxStopBytes = 256;
inline constexpr int64_t kMaxLogprobs = 20;
inline constexpr size_t kMaxMessages = 2048;
inline constexpr size_t kMaxLogitBias = 1024;

enum class Api : uint8_t { kCompletion, kChat };

// What the server knows and a request must respect.
struct RequestBounds {
  uint32_t vocab = 0;
  SamplingParams defaults;  // for fields the request leaves out
};

// Text, or token ids already.
using PromptInput = std::variant<std::string, std::vector<int32_t>>;

struct GenerateRequest {
  Api api = Api::kCompletion;
  std::vector<PromptInput> prompts;    // kCompletion; at least one
  std::vector<ChatMessage> messages;   // kChat; at least one
  uint32_t n = 1;                      // choices a prompt
  std::optional<uint32_t> max_tokens;  // 0: the prompt is run, nothing generated
  uint32_t min_tokens = 0;
  bool ignore_eos = false;
  SamplingParams sampling;
  bool has_seed = false;  // else the server draws one
  std::vector<std::string> stop;
  int logprobs = -1;  // >= 0: wanted, with so many best
  bool echo = false;  // kCompletion: the prompt comes back first
  bool return_token_ids = false;
  bool stream = false;
  bool include_usage = false;  // stream_options
  bool continuous_usage = false;
};

// Throws ApiError (400).
GenerateRequest ParseCompletionRequest(const nlohmann::json& body, const RequestBounds& bounds);
GenerateRequest ParseChatRequest(const nlohmann::json& body, const RequestBounds& bounds);

// "messages" alone, for /apply-template.
std::vector<ChatMessage> ParseMessages(const nlohmann::json& body);
// An array of token ids within the vocabulary.
std::vector<int32_t> ParseTokenIds(const nlohmann::json& array, const std::string& param,
                                   uint32_t vocab);

}  // namespace tandem
