// One HTTP request's generations: submitted together, read as pieces of text by the connection's
// thread, cancelled when the object goes. The engine's thread only appends to a queue.
//
// Belongs to one connection; not thread-safe (the queue inside is).
//
//   Generation generation(engine, model, requests, stops, metrics);
//   while (!generation.finished())
//     if (auto piece = generation.Next(std::chrono::milliseconds(50))) Send(*piece);
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/run/engine.h"
#include "engine/run/text_stream.h"
#include "engine/serve/logprobs.h"

namespace tandem {

class Metrics;

// What happened to one choice: a token with the text it released, or the end.
struct Piece {
  uint32_t choice = 0;
  std::string text;                 // safe to show; may be empty while a code point is incomplete
  std::optional<TokenEvent> token;  // absent in the last piece of a choice
  bool done = false;
  FinishReason reason = FinishReason::kStop;  // when done
  std::string error;                          // when done with kError
};

struct ChoiceRequest {
  Request request;
  int prompt_logprobs = -1;  // >= 0: logprobs of the prompt's tokens, with so many best
  TextStart start = TextStart::kContinues;
};

class Generation {
 public:
  // Submits every choice or none. Throws what Submit() throws. Without a tokenizer in the model
  // pieces have no text. `metrics` outlives the engine's work on these requests.
  Generation(EngineThread& engine, const Model& model, std::vector<ChoiceRequest> choices,
             const std::vector<std::string>& stops, Metrics& metrics);
  ~Generation();  // cancels what is not done
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // The next piece, in the order things happened; nullopt when nothing came in time.
  std::optional<Piece> Next(std::chrono::milliseconds wait);
  bool finished() const { return open_ == 0 && !last_; }

  uint32_t choices() const { return static_cast<uint32_t>(streams_.size()); }
  uint32_t prompt_tokens(uint32_t choice) const;
  uint32_t completion_tokens(uint32_t choice) const;  // shown so far
  const RequestStats& stats(uint32_t choice) const;   // once the choice is done
  // Entry i belongs to prompt token i + 1; complete once the first token came.
  const std::vector<TokenLogprob>& prompt_logprobs(uint32_t choice) const;

 private:
  struct Queue;
  struct Stream;
  class Listener;
  void Cancel();
  std::optional<Piece> OnToken(uint32_t choice, TokenEvent token);
  Piece OnDone(uint32_t choice, FinishReason reason, std::string error, const RequestStats& stats);

  EngineThread& engine_;
  std::shared_ptr<Queue> queue_;
  std::vector<std::unique_ptr<Stream>> streams_;  // by choice
  uint32_t open_ = 0;
  std::optional<Piece> last_;  // the end of a choice whose held-back text went first
};

}  // namespace tandem
