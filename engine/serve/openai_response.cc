#include "engine/serve/openai_response.h"

#include <ctime>

#include "engine/serve/api_error.h"

namespace tandem {
namespace {

using nlohmann::json;

void Add(PhaseStats& sum, const PhaseStats& phase) {
  sum.steps += phase.steps;
  sum.step_time += phase.step_time;
  sum.link_busy += phase.link_busy;
  sum.exposed_comm += phase.exposed_comm;
  sum.link_bytes += phase.link_bytes;
}

json PhaseJson(const PhaseStats& phase) {
  return {{"steps", phase.steps},
          {"link_bytes", phase.link_bytes.value},
          {"link_busy_ms", phase.link_busy.Millis()},
          {"exposed_comm_ms", phase.exposed_comm.Millis()},
          {"step_ms", phase.step_time.Millis()}};
}

}  // namespace

json Usage::Json() const {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens}};
}

OpenAiFormat::OpenAiFormat(ServeContext& context, Api api)
    : api_(api),
      id_(context.random.Id(api == Api::kChat ? "chatcmpl-" : "cmpl-")),
      model_(context.model_id),
      fingerprint_(context.fingerprint),
      created_(std::time(nullptr)) {}

json OpenAiFormat::Frame(const char* object, json choices) const {
  return {{"id", id_},
          {"object", object},
          {"created", created_},
          {"model", model_},
          {"choices", std::move(choices)},
          {"system_fingerprint", fingerprint_}};
}

json OpenAiFormat::Choice(uint32_t index, const std::string& text, json logprobs,
                          std::string_view finish_reason) const {
  json choice{
      {"index", index}, {"finish_reason", finish_reason}, {"logprobs", std::move(logprobs)}};
  if (api_ == Api::kChat) {
    choice["message"] = {{"role", "assistant"}, {"content", text}, {"refusal", nullptr}};
  } else {
    choice["text"] = text;
  }
  return choice;
}

json OpenAiFormat::Body(json choices, const Usage& usage) const {
  json body = Frame(api_ == Api::kChat ? "chat.completion" : "text_completion", std::move(choices));
  body["usage"] = usage.Json();
  return body;
}

json OpenAiFormat::Delta(uint32_t index, const std::string& text, json logprobs, bool first) const {
  json choice{{"index", index}, {"finish_reason", nullptr}, {"logprobs", std::move(logprobs)}};
  if (api_ == Api::kChat) {
    choice["delta"] = {{"content", text}};
    if (first) choice["delta"]["role"] = "assistant";
  } else {
    choice["text"] = text;
  }
  return choice;
}

json OpenAiFormat::End(uint32_t index, std::string_view finish_reason, bool first) const {
  json choice = Delta(index, "", nullptr, first);
  choice["finish_reason"] = finish_reason;
  if (api_ == Api::kChat && !first) choice["delta"] = json::object();
  return choice;
}

json OpenAiFormat::Chunk(json choices) const {
  return Frame(api_ == Api::kChat ? "chat.completion.chunk" : "text_completion",
               std::move(choices));
}

void CostSummary::Add(const RequestStats& stats) {
  tandem::Add(prefill_, stats.prefill);
  tandem::Add(decode_, stats.decode);
  fidelity_ = stats.fidelity;
}

json CostSummary::Json() const {
  return {{"plugin", info_.planned.plugin.name},
          {"plan_hash", info_.planned.plan_hash},
          {"fidelity", ToString(fidelity_)},
          {"prefill", PhaseJson(prefill_)},
          {"decode", PhaseJson(decode_)}};
}

std::string SseFrame(const json& json) { return "data: " + Dump(json) + "\n\n"; }

}  // namespace tandem
