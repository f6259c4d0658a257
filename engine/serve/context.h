// What every handler works with: one engine, its model, and the server's own state.
// Made once by the server and shared by all connections; everything in it is thread-safe or
// constant.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/model/chat_template.h"
#include "engine/model/tokenizer.h"
#include "engine/run/engine.h"
#include "engine/serve/lifecycle.h"
#include "engine/serve/metrics.h"
#include "engine/serve/server_options.h"

namespace tandem {

// Unpredictable enough for ids and seeds of requests that name none. Thread-safe.
class RandomSource {
 public:
  RandomSource();
  uint64_t Next();
  std::string Id(std::string_view prefix);  // the prefix and 24 hex digits

 private:
  std::atomic<uint64_t> state_;
};

struct ServeContext {
  ServeContext(Engine& engine, ServerOptions options);

  Engine& engine;
  const ServerOptions options;
  const Model& model;
  const Tokenizer* const tokenizer;  // null: prompts are token ids, answers too
  const std::string model_id;
  const std::string fingerprint;  // of the answers: which plan made them
  const int64_t created;          // Unix seconds
  uint32_t slot_context = 0;      // tokens one sequence may have
  size_t longest_token = 1;       // bytes: bounds how short a long text can tokenise
  std::optional<ChatTemplate> chat_template;
  std::string no_chat_reason;  // why there is none
  Lifecycle lifecycle;
  Metrics metrics;
  RandomSource random;
  EngineThread thread;  // last: it stops before what it uses goes

  // Throws ApiError (501) saying why when the model cannot chat.
  const ChatTemplate& ChatTemplateOrFail() const;
  // Throws ApiError (501) when the model has no vocabulary.
  const Tokenizer& TokenizerOrFail() const;
};

}  // namespace tandem
