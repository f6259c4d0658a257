#include "engine/serve/openai_request.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>

#include "engine/serve/api_error.h"
#include "engine/serve/json_input.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();

bool IsEmpty(const json& value) {
  return value.is_null() || (value.is_structured() && value.empty()) ||
         (value.is_string() && value.get_ref<const std::string&>().empty()) ||
         (value.is_boolean() && !value.get<bool>());
}

// Fields that ask for something tandem does not do. Ignoring them would give an answer other than
// the one that was asked for.
void RefuseUnsupported(const json& body) {
  static constexpr const char* kRefused[] = {"tools",
                                             "functions",
                                             "function_call",
                                             "grammar",
                                             "json_schema",
                                             "guided_json",
                                             "guided_regex",
                                             "guided_choice",
                                             "guided_grammar",
                                             "structured_outputs",
                                             "suffix",
                                             "chat_template",
                                             "chat_template_kwargs",
                                             "audio",
                                             "use_beam_search",
                                             "prompt_logprobs",
                                             "logits_processors",
                                             "lora",
                                             "prediction",
                                             "web_search_options"};
  for (const char* name : kRefused) {
    auto it = body.find(name);
    if (it != body.end() && !IsEmpty(*it)) {
      FailRequest(name, fmt::format("{} is not supported by this server; leave it out", name),
                  "unsupported_parameter");
    }
  }
  auto choice = body.find("tool_choice");
  if (choice != body.end() && !IsEmpty(*choice) && *choice != "none" && *choice != "auto") {
    FailRequest("tool_choice", "tool_choice is not supported by this server; leave it out",
                "unsupported_parameter");
  }
  auto format = body.find("response_format");
  if (format != body.end() && !IsEmpty(*format)) {
    bool plain = format->is_object() && format->value("type", json()) == "text";
    if (!plain) {
      FailRequest("response_format",
                  "response_format: only {\"type\": \"text\"} is supported by this server",
                  "unsupported_parameter");
    }
  }
  auto modalities = body.find("modalities");
  if (modalities != body.end() && !IsEmpty(*modalities) && *modalities != json::array({"text"})) {
    FailRequest("modalities", "modalities: only [\"text\"] is supported by this server",
                "unsupported_parameter");
  }
}

void AddBias(const std::string& id_text, const json& bias, uint32_t vocab, SamplingParams& to) {
  int64_t id = -1;
  auto [end, error] = std::from_chars(id_text.data(), id_text.data() + id_text.size(), id);
  if (error != std::errc() || end != id_text.data() + id_text.size() || id < 0 || id >= vocab) {
    FailRequest("logit_bias", fmt::format("logit_bias: token id '{}' (want 0 to {})",
                                          id_text.substr(0, 40), vocab - 1));
  }
  double value = CheckedNumber(bias, "logit_bias", -100, 100);
  to.logit_bias.emplace_back(static_cast<int32_t>(id), static_cast<float>(value));
}

void ReadLogitBias(const json& body, uint32_t vocab, SamplingParams& to) {
  const json* value = Fields(body).Find("logit_bias");
  if (value == nullptr) return;
  if (!value->is_structured() || value->size() > kMaxLogitBias) {
    FailRequest("logit_bias",
                fmt::format("logit_bias: {} (want an object of token id to bias, or an array of "
                            "[id, bias], of at most {} entries)",
                            Excerpt(*value), kMaxLogitBias));
  }
  if (value->is_object()) {
    for (const auto& [id, bias] : value->items()) AddBias(id, bias, vocab, to);
    return;
  }
  for (const json& pair : *value) {
    if (!pair.is_array() || pair.size() != 2) {
      FailRequest("logit_bias", "logit_bias: each entry of the array must be [id, bias]");
    }
    int64_t id = CheckedInteger(pair[0], "logit_bias", 0, int64_t{vocab} - 1);
    AddBias(std::to_string(id), pair[1], vocab, to);
  }
}

void ReadSampling(const json& body, const RequestBounds& bounds, GenerateRequest& to) {
  Fields fields(body);
  SamplingParams& s = to.sampling;
  s = bounds.defaults;
  s.temperature = fields.Number("temperature", 0, 2).value_or(s.temperature);
  s.top_p = fields.Number("top_p", 0, 1).value_or(s.top_p);
  s.min_p = fields.Number("min_p", 0, 1).value_or(s.min_p);
  // -1 and 0 both mean "off" to one client or another.
  if (auto top_k = fields.Integer("top_k", -1, kMaxTokens)) {
    s.top_k = *top_k < 0 ? 0 : static_cast<uint32_t>(*top_k);
  }
  s.presence_penalty = fields.Number("presence_penalty", -2, 2).value_or(s.presence_penalty);
  s.frequency_penalty = fields.Number("frequency_penalty", -2, 2).value_or(s.frequency_penalty);
  auto repetition = fields.Number("repetition_penalty", 0.01, 100);
  if (!repetition) repetition = fields.Number("repeat_penalty", 0.01, 100);
  s.repetition_penalty = repetition.value_or(s.repetition_penalty);
  // -1 is the habitual spelling of "any".
  if (auto seed = fields.Integer("seed", std::numeric_limits<int64_t>::min(),
                                 std::numeric_limits<int64_t>::max());
      seed && *seed != -1) {
    s.seed = static_cast<uint64_t>(*seed);
    to.has_seed = true;
  }
  ReadLogitBias(body, bounds.vocab, s);
}

void ReadStop(const json& body, GenerateRequest& to) {
  const json* value = Fields(body).Find("stop");
  if (value == nullptr) return;
  json list = value->is_string() ? json::array({*value}) : *value;
  if (!list.is_array() || list.size() > kMaxStops) {
    FailRequest("stop", fmt::format("stop: {} (want a string, or an array of at most {} strings)",
                                    Excerpt(*value), kMaxStops));
  }
  for (const json& stop : list) {
    size_t bytes = stop.is_string() ? stop.get_ref<const std::string&>().size() : 0;
    if (bytes == 0 || bytes > kMaxStopBytes) {
      FailRequest("stop", fmt::format("stop: {} (want a string of 1 to {} bytes)", Excerpt(stop),
                                      kMaxStopBytes));
    }
    to.stop.push_back(stop.get<std::string>());
  }
}

void ReadStream(const json& body, GenerateRequest& to) {
  Fields fields(body);
  to.stream = fields.Bool("stream").value_or(false);
  const json* options = fields.Find("stream_options");
  if (options == nullptr) return;
  if (!options->is_object()) {
    FailRequest("stream_options",
                fmt::format("stream_options: {} (want an object)", Excerpt(*options)));
  }
  if (!to.stream) {
    FailRequest("stream_options", "stream_options: only allowed when stream is true");
  }
  Fields inner(*options);
  to.include_usage = inner.Bool("include_usage").value_or(false);
  to.continuous_usage = inner.Bool("continuous_usage_stats").value_or(false);
}

void ReadCommon(const json& body, const RequestBounds& bounds, GenerateRequest& to) {
  RefuseUnsupported(body);
  Fields fields(body);
  fields.String("model");  // one model is served, whatever it is called; the answer names it
  to.n = static_cast<uint32_t>(fields.Integer("n", 1, kMaxChoicesPerPrompt).value_or(1));
  if (auto best_of = fields.Integer("best_of", 0, 20); best_of && *best_of > to.n) {
    FailRequest("best_of", "best_of: choosing among more than n completions is not supported",
                "unsupported_parameter");
  }
  auto max_tokens = fields.Integer("max_completion_tokens", 0, kMaxTokens);
  auto old_name = fields.Integer("max_tokens", 0, kMaxTokens);
  if (max_tokens && old_name && *max_tokens != *old_name) {
    FailRequest("max_tokens", "max_tokens and max_completion_tokens differ; give one of them");
  }
  if (!max_tokens) max_tokens = old_name;
  if (max_tokens) to.max_tokens = static_cast<uint32_t>(*max_tokens);
  to.min_tokens = static_cast<uint32_t>(fields.Integer("min_tokens", 0, kMaxTokens).value_or(0));
  if (to.max_tokens && to.min_tokens > *to.max_tokens) {
    FailRequest("min_tokens", fmt::format("min_tokens: {} is more than max_tokens, {}",
                                          to.min_tokens, *to.max_tokens));
  }
  to.ignore_eos = fields.Bool("ignore_eos").value_or(false);
  to.return_token_ids = fields.Bool("return_token_ids").value_or(false);
  ReadSampling(body, bounds, to);
  ReadStop(body, to);
  ReadStream(body, to);
}

// One message's text: a string, or an array of text parts.
std::string ReadContent(const json& message, const std::string& param) {
  const json* content = Fields(message).Find("content");
  if (content == nullptr) {
    if (message.value("role", json()) == "assistant") return "";
    FailRequest(param, fmt::format("{}.content is missing", param));
  }
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) {
    FailRequest(param, fmt::format("{}.content: {} (want a string, or an array of text parts)",
                                   param, Excerpt(*content)));
  }
  std::string text;
  for (const json& part : *content) {
    bool is_text = part.is_object() && part.value("type", json()) == "text" &&
                   part.value("text", json()).is_string();
    if (!is_text) {
      FailRequest(param,
                  fmt::format("{}.content: only parts of {{\"type\": \"text\", \"text\": ...}} are "
                              "supported by this server",
                              param),
                  "unsupported_parameter");
    }
    text += part["text"].get<std::string>();
  }
  return text;
}

ChatMessage ReadMessage(const json& message, const std::string& param) {
  if (!message.is_object()) {
    FailRequest(param, fmt::format("{}: {} (want an object)", param, Excerpt(message)));
  }
  json role = message.value("role", json());
  if (role == "developer") role = "system";
  if (role != "system" && role != "user" && role != "assistant") {
    FailRequest(param, fmt::format("{}.role: {} (want system, developer, user or assistant)", param,
                                   Excerpt(role)));
  }
  for (const char* name : {"tool_calls", "function_call", "audio"}) {
    auto it = message.find(name);
    if (it != message.end() && !IsEmpty(*it)) {
      FailRequest(param, fmt::format("{}.{} is not supported by this server", param, name),
                  "unsupported_parameter");
    }
  }
  return {role.get<std::string>(), ReadContent(message, param)};
}

bool IsIntegerArray(const json& value) {
  return value.is_array() && !value.empty() && value.front().is_number();
}

PromptInput ReadPrompt(const json& value, const std::string& param, uint32_t vocab) {
  if (value.is_string()) return value.get<std::string>();
  if (IsIntegerArray(value)) return ParseTokenIds(value, param, vocab);
  FailRequest(
      param, fmt::format("{}: {} (want a string or an array of token ids)", param, Excerpt(value)));
}

void ReadPrompts(const json& body, uint32_t vocab, GenerateRequest& to) {
  const json* value = Fields(body).Find("prompt");
  if (value == nullptr) FailRequest("prompt", "prompt is missing", "missing_required_parameter");
  if (!value->is_array() || IsIntegerArray(*value)) {
    to.prompts.push_back(ReadPrompt(*value, "prompt", vocab));
    return;
  }
  if (value->empty() || value->size() > kMaxPrompts) {
    FailRequest("prompt", fmt::format("prompt: an array of {} prompts (want 1 to {})",
                                      value->size(), kMaxPrompts));
  }
  for (size_t i = 0; i < value->size(); ++i) {
    to.prompts.push_back(ReadPrompt((*value)[i], fmt::format("prompt[{}]", i), vocab));
  }
}

}  // namespace

std::vector<int32_t> ParseTokenIds(const json& array, const std::string& param, uint32_t vocab) {
  if (!array.is_array()) {
    FailRequest(param, fmt::format("{}: {} (want an array of token ids)", param, Excerpt(array)));
  }
  std::vector<int32_t> ids;
  ids.reserve(array.size());
  for (const json& id : array) {
    ids.push_back(static_cast<int32_t>(CheckedInteger(id, param, 0, int64_t{vocab} - 1)));
  }
  return ids;
}

std::vector<ChatMessage> ParseMessages(const json& body) {
  const json* value = Fields(body).Find("messages");
  if (value == nullptr) {
    FailRequest("messages", "messages is missing", "missing_required_parameter");
  }
  if (!value->is_array() || value->empty() || value->size() > kMaxMessages) {
    FailRequest("messages", fmt::format("messages: {} (want an array of 1 to {} messages)",
                                        Excerpt(*value), kMaxMessages));
  }
  std::vector<ChatMessage> messages;
  for (size_t i = 0; i < value->size(); ++i) {
    messages.push_back(ReadMessage((*value)[i], fmt::format("messages[{}]", i)));
  }
  return messages;
}

GenerateRequest ParseCompletionRequest(const json& body, const RequestBounds& bounds) {
  GenerateRequest request;
  request.api = Api::kCompletion;
  ReadCommon(body, bounds, request);
  ReadPrompts(body, bounds.vocab, request);
  if (request.prompts.size() * request.n > kMaxChoices) {
    FailRequest("n", fmt::format("n: {} choices for each of {} prompts (want at most {} in all)",
                                 request.n, request.prompts.size(), kMaxChoices));
  }
  Fields fields(body);
  request.echo = fields.Bool("echo").value_or(false);
  request.logprobs = static_cast<int>(fields.Integer("logprobs", 0, kMaxLogprobs).value_or(-1));
  if (!request.max_tokens) request.max_tokens = std::max(16u, request.min_tokens);
  return request;
}

GenerateRequest ParseChatRequest(const json& body, const RequestBounds& bounds) {
  GenerateRequest request;
  request.api = Api::kChat;
  ReadCommon(body, bounds, request);
  request.messages = ParseMessages(body);
  Fields fields(body);
  if (fields.Bool("echo").value_or(false)) {
    FailRequest("echo", "echo is not supported by chat completions", "unsupported_parameter");
  }
  bool wanted = fields.Bool("logprobs").value_or(false);
  auto top = fields.Integer("top_logprobs", 0, kMaxLogprobs);
  if (top && *top > 0 && !wanted) {
    FailRequest("top_logprobs", "top_logprobs: only allowed when logprobs is true");
  }
  if (wanted) request.logprobs = static_cast<int>(top.value_or(0));
  return request;
}

}  // namespace tandem
