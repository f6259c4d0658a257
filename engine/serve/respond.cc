#include "engine/serve/respond.h"

#include <fmt/format.h>

#include <chrono>
#include <optional>

#include "engine/base/error.h"
#include "engine/serve/api_error.h"
#include "engine/serve/generation.h"
#include "engine/serve/openai_response.h"
#include "engine/serve/prompt.h"

namespace tandem {
namespace {

using nlohmann::json;

// How often a waiting connection looks whether its client is still there.
constexpr std::chrono::milliseconds kPoll{50};

// One request being answered.
class Answer {
 public:
  Answer(ServeContext& context, const GenerateRequest& request);

  HttpResponse Whole(const HttpRequest& http);
  void Stream(HttpWriter& writer);
  const std::string& id() const { return format_.id(); }

 private:
  // A choice so far.
  struct Choice {
    explicit Choice(const Tokenizer* tokenizer) : completion_logprobs(tokenizer) {}
    std::string text;
    std::vector<int32_t> ids;
    json chat_logprobs = json::array();
    CompletionLogprobs completion_logprobs;
    bool started = false;
    std::string finish_reason;
  };

  std::vector<ChoiceRequest> ChoiceRequests() const;
  void FailIfAborted() const;
  // Adds a piece to its choice; returns the text to show, echo included. Throws for a failed one.
  std::string Take(const Piece& piece);
  void TakePromptLogprobs(uint32_t index, Choice& choice);
  json TakeLogprobs(Choice& choice) const;
  json ChunkOf(const Piece& piece);
  Usage TotalUsage() const;
  json Cost() const;
  bool WriteStream(HttpWriter& writer);
  std::string LastFrames(json chunk);

  ServeContext& context_;
  GenerateRequest request_;
  std::vector<EncodedPrompt> prompts_;
  OpenAiFormat format_;
  Lifecycle::Ticket ticket_;
  std::vector<Choice> choices_;
  std::optional<Generation> generation_;
};

Answer::Answer(ServeContext& context, const GenerateRequest& request)
    : context_(context),
      request_(request),
      prompts_(EncodePrompts(context, request)),
      format_(context, request.api),
      ticket_(context.lifecycle) {
  // Without a vocabulary ids are all there is to say.
  if (context.tokenizer == nullptr) request_.return_token_ids = true;
  // Looked at after the ticket is taken: whoever drains then waits for this one, or it is refused.
  if (context_.lifecycle.draining()) {
    throw ApiError(503, "unavailable_error", "the server is shutting down");
  }
  choices_.assign(prompts_.size() * request_.n, Choice(context_.tokenizer));
  generation_.emplace(context_.thread, context_.model, ChoiceRequests(), request_.stop,
                      context_.metrics);
}

std::vector<ChoiceRequest> Answer::ChoiceRequests() const {
  std::vector<ChoiceRequest> result;
  for (const EncodedPrompt& prompt : prompts_) {
    for (uint32_t i = 0; i < request_.n; ++i) {
      ChoiceRequest choice;
      if (request_.api == Api::kChat) choice.start = TextStart::kBegins;
      Request& r = choice.request;
      r.prompt = prompt.ids;
      r.max_tokens = request_.max_tokens.value_or(context_.slot_context);
      r.min_tokens = request_.min_tokens;
      r.ignore_eos = request_.ignore_eos;
      r.sampling = request_.sampling;
      r.sampling.seed = request_.has_seed ? request_.sampling.seed + i : context_.random.Next();
      r.logprobs = request_.logprobs;
      if (request_.echo) choice.prompt_logprobs = request_.logprobs;
      result.push_back(std::move(choice));
    }
  }
  return result;
}

void Answer::FailIfAborted() const {
  if (context_.lifecycle.aborted()) {
    throw ApiError(503, "unavailable_error", "the server shut down before the answer was complete");
  }
}

void Answer::TakePromptLogprobs(uint32_t index, Choice& choice) {
  const std::vector<int32_t>& ids = prompts_[index / request_.n].ids;
  choice.completion_logprobs.AddUnscored(ids.front());
  for (const TokenLogprob& token : generation_->prompt_logprobs(index)) {
    choice.completion_logprobs.Add(token, request_.logprobs > 0);
  }
}

std::string Answer::Take(const Piece& piece) {
  Choice& choice = choices_[piece.choice];
  std::string text = piece.text;
  if (piece.done) {
    if (piece.reason == FinishReason::kError) {
      throw ApiError(500, "server_error", "generation failed: " + piece.error);
    }
    if (piece.reason == FinishReason::kCancelled) {
      FailIfAborted();
      throw ApiError(503, "unavailable_error", "generation was cancelled by the server");
    }
    choice.finish_reason = ToString(piece.reason);
  }
  if (!choice.started && request_.echo) {
    text = prompts_[piece.choice / request_.n].text + text;
    if (request_.logprobs >= 0) TakePromptLogprobs(piece.choice, choice);
  }
  if (piece.token) {
    choice.ids.push_back(piece.token->id);
    TokenLogprob logprob{piece.token->id, piece.token->logprob, piece.token->top};
    if (request_.logprobs >= 0 && request_.api == Api::kChat) {
      choice.chat_logprobs.push_back(ChatLogprob(context_.tokenizer, logprob));
    } else if (request_.logprobs >= 0) {
      choice.completion_logprobs.Add(logprob, request_.logprobs > 0);
    }
  }
  return text;
}

json Answer::TakeLogprobs(Choice& choice) const {
  if (request_.logprobs < 0) return nullptr;
  if (request_.api == Api::kCompletion) return choice.completion_logprobs.Take();
  json content = std::move(choice.chat_logprobs);
  choice.chat_logprobs = json::array();
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Usage Answer::TotalUsage() const {
  Usage usage;
  for (uint32_t i = 0; i < generation_->choices(); ++i) {
    // A prompt counts once, however many choices it has.
    if (i % request_.n == 0) usage.prompt_tokens += generation_->prompt_tokens(i);
    usage.completion_tokens += generation_->completion_tokens(i);
  }
  return usage;
}

json Answer::Cost() const {
  CostSummary cost(context_.engine.info());
  for (uint32_t i = 0; i < generation_->choices(); ++i) cost.Add(generation_->stats(i));
  return cost.Json();
}

HttpResponse Answer::Whole(const HttpRequest& http) {
  while (!generation_->finished()) {
    FailIfAborted();
    std::optional<Piece> piece = generation_->Next(kPoll);
    if (!http.connected()) {
      context_.metrics.CountDisconnect();
      // Nobody reads this; the status is for the metrics, and follows nginx's habit.
      return ApiError(499, "client_closed_request", "the client closed the connection").Response();
    }
    if (!piece) continue;
    Choice& choice = choices_[piece->choice];
    choice.text += Take(*piece);
    choice.started = true;
  }
  json list = json::array();
  for (uint32_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    json entry = format_.Choice(i, choice.text, TakeLogprobs(choice), choice.finish_reason);
    if (request_.return_token_ids) entry["token_ids"] = choice.ids;
    list.push_back(std::move(entry));
  }
  json body = format_.Body(std::move(list), TotalUsage());
  body["tandem"] = Cost();
  return {.body = Dump(body)};
}

// The chunk for a piece; null when there is nothing to tell yet. The first token of a choice is
// always told, with or without text: clients time it.
json Answer::ChunkOf(const Piece& piece) {
  Choice& choice = choices_[piece.choice];
  bool first = !choice.started;
  std::string text = Take(piece);
  if (piece.done && text.empty() && (request_.logprobs < 0 || !first)) {
    choice.started = true;
    return format_.Chunk(json::array({format_.End(piece.choice, choice.finish_reason, first)}));
  }
  bool silent = text.empty() && !first && request_.logprobs < 0 && !request_.return_token_ids &&
                !request_.continuous_usage;
  if (silent) return nullptr;
  choice.started = true;
  json entry = piece.done ? format_.End(piece.choice, choice.finish_reason, first)
                          : format_.Delta(piece.choice, text, nullptr, first);
  if (piece.done && request_.api == Api::kCompletion) entry["text"] = text;
  entry["logprobs"] = TakeLogprobs(choice);
  if (request_.return_token_ids) entry["token_ids"] = std::exchange(choice.ids, {});
  return format_.Chunk(json::array({std::move(entry)}));
}

std::string Answer::LastFrames(json chunk) {
  if (request_.include_usage) {
    json last = format_.Chunk(json::array());
    last["usage"] = TotalUsage().Json();
    last["tandem"] = Cost();
    return SseFrame(chunk) + SseFrame(last) + std::string(kSseDone);
  }
  chunk["tandem"] = Cost();
  return SseFrame(chunk) + std::string(kSseDone);
}

// False when the client is gone.
bool Answer::WriteStream(HttpWriter& writer) {
  auto written = std::chrono::steady_clock::now();
  auto ping_after = std::chrono::duration<double>(context_.options.ping_interval_s);
  while (!generation_->finished()) {
    FailIfAborted();
    std::optional<Piece> piece = generation_->Next(kPoll);
    if (!writer.Connected()) return false;
    auto now = std::chrono::steady_clock::now();
    std::string frames;
    if (piece) {
      json chunk = ChunkOf(*piece);
      if (chunk.is_null()) continue;
      if (request_.continuous_usage) {
        chunk["usage"] = TotalUsage().Json();
      } else if (request_.include_usage) {
        chunk["usage"] = nullptr;
      }
      frames = generation_->finished() ? LastFrames(std::move(chunk)) : SseFrame(chunk);
    } else if (now - written > ping_after) {
      frames = kSsePing;
    }
    if (frames.empty()) continue;
    if (!writer.Write(frames)) return false;
    written = now;
  }
  return true;
}

void Answer::Stream(HttpWriter& writer) {
  try {
    if (!WriteStream(writer)) context_.metrics.CountDisconnect();
  } catch (const Error& error) {
    // The status has gone out already. A stream that just ended would look like a success.
    const auto* api = dynamic_cast<const ApiError*>(&error);
    json frame = api != nullptr ? api->Json() : ApiError::From(error).Json();
    context_.options.log->Write(LogLevel::kWarning,
                                fmt::format("serve: {}: {}", format_.id(), error.what()));
    writer.Write(SseFrame(frame) + std::string(kSseDone));
  }
}

}  // namespace

HttpResponse Respond(ServeContext& context, const GenerateRequest& request,
                     const HttpRequest& http) {
  auto answer = std::make_shared<Answer>(context, request);
  HttpResponse response;
  if (request.stream) {
    response.content_type = "text/event-stream";
    response.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
    response.stream = [answer](HttpWriter& writer) { answer->Stream(writer); };
  } else {
    response = answer->Whole(http);
  }
  response.headers.emplace_back("x-request-id", answer->id());
  return response;
}

}  // namespace tandem
