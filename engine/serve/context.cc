#include "engine/serve/context.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <random>

#include "engine/base/error.h"
#include "engine/serve/api_error.h"

namespace tandem {
namespace {

// "/models/SmolLM2-135M.gguf" is called "SmolLM2-135M".
std::string ModelId(const ServerOptions& options, const Model& model) {
  if (!options.model_alias.empty()) return options.model_alias;
  std::string name = model.source();
  if (name.rfind("synthetic:", 0) == 0) return name;
  if (size_t slash = name.rfind('/'); slash != std::string::npos) name = name.substr(slash + 1);
  if (name.size() > 5 && name.ends_with(".gguf")) name.resize(name.size() - 5);
  return name.empty() ? "model" : name;
}

size_t LongestToken(const Tokenizer* tokenizer) {
  size_t longest = 1;
  if (tokenizer == nullptr) return longest;
  for (uint32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    longest = std::max(longest, tokenizer->TokenBytes(static_cast<int32_t>(id), true).size());
  }
  return longest;
}

uint32_t SlotContext(const PlanLimits& limits) {
  return limits.context / std::max(1u, limits.max_sequences);
}

}  // namespace

RandomSource::RandomSource() {
  std::random_device device;
  state_ = (uint64_t{device()} << 32) ^ device();
}

// SplitMix64 (Steele, Lea, Flood 2014): a counter through a mixer.
uint64_t RandomSource::Next() {
  uint64_t z = state_.fetch_add(0x9E3779B97F4A7C15) + 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

std::string RandomSource::Id(std::string_view prefix) {
  return fmt::format("{}{:016x}{:08x}", prefix, Next(), static_cast<uint32_t>(Next()));
}

ServeContext::ServeContext(Engine& e, ServerOptions o)
    : engine(e),
      options(std::move(o)),
      model(e.model()),
      tokenizer(e.model().tokenizer()),
      model_id(ModelId(options, model)),
      fingerprint("tandem-" + e.info().planned.plan_hash.substr(0, 12)),
      created(std::time(nullptr)),
      slot_context(SlotContext(e.options().limits)),
      longest_token(LongestToken(tokenizer)),
      metrics(e, model_id),
      thread(e) {
  if (tokenizer == nullptr) {
    no_chat_reason = "the model has no vocabulary; send token ids to /v1/completions";
  } else if (model.chat_template().empty()) {
    no_chat_reason = "the model file has no chat template; use /v1/completions";
  } else {
    try {
      chat_template = ChatTemplate::Parse(model.chat_template());
    } catch (const Error& error) {
      no_chat_reason = fmt::format(
          "the model's chat template cannot be used: {}; use "
          "/v1/completions",
          error.what());
      options.log->Write(LogLevel::kWarning, "serve: " + no_chat_reason);
    }
  }
}

const ChatTemplate& ServeContext::ChatTemplateOrFail() const {
  if (!chat_template) throw ApiError(501, "not_supported_error", no_chat_reason, "messages");
  return *chat_template;
}

const Tokenizer& ServeContext::TokenizerOrFail() const {
  if (tokenizer == nullptr) {
    throw ApiError(501, "not_supported_error", "the model has no vocabulary; send token ids");
  }
  return *tokenizer;
}

}  // namespace tandem
