// The OpenAI protocol's answers: whole bodies, and the chunks of a stream. Each answer carries what
// it cost under one key of our own, "tandem".
//
// A formatter belongs to one request.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "engine/run/engine.h"
#include "engine/serve/context.h"
#include "engine/serve/openai_request.h"

namespace tandem {

struct Usage {
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  nlohmann::json Json() const;
};

class OpenAiFormat {
 public:
  OpenAiFormat(ServeContext& context, Api api);

  const std::string& id() const { return id_; }

  // A choice of a whole body. `logprobs` is null when none were asked for.
  nlohmann::json Choice(uint32_t index, const std::string& text, nlohmann::json logprobs,
                        std::string_view finish_reason) const;
  nlohmann::json Body(nlohmann::json choices, const Usage& usage) const;

  // A choice of a chunk: text as it comes (`first`: the chat role goes with it), then one end.
  nlohmann::json Delta(uint32_t index, const std::string& text, nlohmann::json logprobs,
                       bool first) const;
  nlohmann::json End(uint32_t index, std::string_view finish_reason, bool first) const;
  nlohmann::json Chunk(nlohmann::json choices) const;

 private:
  nlohmann::json Frame(const char* object, nlohmann::json choices) const;

  Api api_;
  std::string id_, model_, fingerprint_;
  int64_t created_;
};

// {"plugin", "plan_hash", "fidelity", "prefill": {"steps", "link_bytes", "link_busy_ms",
// "exposed_comm_ms", "step_ms"}, "decode": {...}}: sums over the generations of one answer, times
// in rig time.
class CostSummary {
 public:
  explicit CostSummary(const EngineInfo& info) : info_(info), fidelity_(info.fidelity) {}
  void Add(const RequestStats& stats);
  nlohmann::json Json() const;

 private:
  const EngineInfo& info_;
  Fidelity fidelity_;
  PhaseStats prefill_, decode_;
};

// One server-sent event.
std::string SseFrame(const nlohmann::json& json);
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";
inline constexpr std::string_view kSsePing = ": ping\n\n";

}  // namespace tandem
