#include "engine/serve/generation.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <span>
#include <utility>

#include "engine/serve/metrics.h"

namespace tandem {

// What the engine's thread said, waiting for the connection's.
struct Generation::Queue {
  struct Entry {
    uint32_t choice = 0;
    TokenEvent token;
    bool done = false;
    FinishReason reason = FinishReason::kStop;
    std::string error;
    RequestStats stats;
  };

  std::mutex mutex;
  std::condition_variable ready;
  std::deque<Entry> entries;  // guarded by mutex

  void Push(Entry entry) {
    {
      std::lock_guard lock(mutex);
      entries.push_back(std::move(entry));
    }
    ready.notify_one();
  }
};

// One choice, as the connection's thread knows it.
struct Generation::Stream {
  RequestId id = 0;
  bool done = false;
  bool stopped = false;  // a stop string was met; the engine ends the request at its next step
  uint32_t prompt_tokens = 0;
  uint32_t shown = 0;
  std::optional<TextStream> text;  // empty without a tokenizer
  RequestStats stats;
  // Written by the listener before it queues the first token, read after.
  std::shared_ptr<std::vector<TokenLogprob>> prompt_logprobs;
};

// Called on the engine's thread.
class Generation::Listener final : public RequestListener {
 public:
  Listener(std::shared_ptr<Queue> queue, uint32_t choice, Metrics& metrics)
      : queue_(std::move(queue)), choice_(choice), timer_(metrics) {}

  void WantPromptLogprobs(std::vector<int32_t> prompt, int top, uint32_t vocab,
                          std::shared_ptr<std::vector<TokenLogprob>> to) {
    prompt_ = std::move(prompt);
    top_ = top;
    vocab_ = vocab;
    prompt_logprobs_ = std::move(to);
  }

  void OnToken(const TokenEvent& event) override {
    timer_.OnToken();
    queue_->Push({.choice = choice_, .token = event});
  }

  // Reduced here, and not handed over: a row of logits is as wide as the vocabulary.
  void OnPromptLogits(uint32_t first, const std::vector<float>& logits) override {
    if (prompt_logprobs_ == nullptr) return;
    for (size_t row = 0; row * vocab_ < logits.size(); ++row) {
      size_t next = first + row + 1;
      if (next >= prompt_.size()) break;
      std::span<const float> of_row(logits.data() + row * vocab_, vocab_);
      prompt_logprobs_->push_back(LogprobOf(of_row, prompt_[next], top_));
    }
  }

  void OnDone(FinishReason reason, const std::string& error, const RequestStats& stats) override {
    timer_.OnDone();
    queue_->Push(
        {.choice = choice_, .done = true, .reason = reason, .error = error, .stats = stats});
  }

 private:
  std::shared_ptr<Queue> queue_;
  uint32_t choice_;
  RequestTimer timer_;
  std::vector<int32_t> prompt_;
  int top_ = 0;
  uint32_t vocab_ = 0;
  std::shared_ptr<std::vector<TokenLogprob>> prompt_logprobs_;
};

Generation::Generation(EngineThread& engine, const Model& model, std::vector<ChoiceRequest> choices,
                       const std::vector<std::string>& stops, Metrics& metrics)
    : engine_(engine), queue_(std::make_shared<Queue>()) {
  try {
    for (uint32_t i = 0; i < choices.size(); ++i) {
      ChoiceRequest& choice = choices[i];
      auto stream = std::make_unique<Stream>();
      auto listener = std::make_shared<Listener>(queue_, i, metrics);
      stream->prompt_tokens = static_cast<uint32_t>(choice.request.prompt.size());
      stream->prompt_logprobs = std::make_shared<std::vector<TokenLogprob>>();
      if (model.tokenizer() != nullptr) {
        stream->text.emplace(*model.tokenizer(), stops, choice.start);
      }
      if (choice.prompt_logprobs >= 0) {
        choice.request.prompt_logits = true;
        listener->WantPromptLogprobs(choice.request.prompt, choice.prompt_logprobs,
                                     model.config().vocab, stream->prompt_logprobs);
      }
      stream->id = engine_.Submit(std::move(choice.request), std::move(listener));
      streams_.push_back(std::move(stream));
      ++open_;
    }
  } catch (...) {
    Cancel();
    throw;
  }
}

Generation::~Generation() { Cancel(); }

void Generation::Cancel() {
  for (const auto& stream : streams_) {
    if (!stream->done) engine_.Cancel(stream->id);
  }
}

std::optional<Piece> Generation::Next(std::chrono::milliseconds wait) {
  if (last_) return std::exchange(last_, std::nullopt);
  auto until = std::chrono::steady_clock::now() + wait;
  while (true) {
    Queue::Entry entry;
    {
      std::unique_lock lock(queue_->mutex);
      if (!queue_->ready.wait_until(lock, until, [&] { return !queue_->entries.empty(); })) {
        return std::nullopt;
      }
      entry = std::move(queue_->entries.front());
      queue_->entries.pop_front();
    }
    if (entry.done) return OnDone(entry.choice, entry.reason, std::move(entry.error), entry.stats);
    if (auto piece = OnToken(entry.choice, std::move(entry.token))) return piece;
  }
}

std::optional<Piece> Generation::OnToken(uint32_t choice, TokenEvent token) {
  Stream& stream = *streams_[choice];
  if (stream.stopped) return std::nullopt;
  Piece piece{.choice = choice};
  ++stream.shown;
  if (stream.text) {
    piece.text = stream.text->Add(token.id);
    if (stream.text->stopped()) {
      stream.stopped = true;
      engine_.Cancel(stream.id);
    }
  }
  piece.token = std::move(token);
  return piece;
}

Piece Generation::OnDone(uint32_t choice, FinishReason reason, std::string error,
                         const RequestStats& stats) {
  Stream& stream = *streams_[choice];
  stream.done = true;
  stream.stats = stats;
  --open_;
  if (stream.stopped) reason = FinishReason::kStop;
  Piece end{.choice = choice, .done = true, .reason = reason, .error = std::move(error)};
  std::string rest = stream.text ? stream.text->Finish() : "";
  if (rest.empty()) return end;
  last_ = std::move(end);
  return Piece{.choice = choice, .text = std::move(rest)};
}

uint32_t Generation::prompt_tokens(uint32_t choice) const {
  return streams_[choice]->prompt_tokens;
}

uint32_t Generation::completion_tokens(uint32_t choice) const { return streams_[choice]->shown; }

const RequestStats& Generation::stats(uint32_t choice) const { return streams_[choice]->stats; }

const std::vector<TokenLogprob>& Generation::prompt_logprobs(uint32_t choice) const {
  return *streams_[choice]->prompt_logprobs;
}

}  // namespace tandem
