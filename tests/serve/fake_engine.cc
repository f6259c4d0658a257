#include "tests/serve/fake_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "engine/base/error.h"

namespace tandem::testing {
namespace {

constexpr std::string_view kEndText = "<|end|>";
constexpr std::string_view kStartText = "<|start|>";

}  // namespace

std::vector<int32_t> ByteTokenizer::Encode(std::string_view text,
                                           const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < text.size();) {
    if (options.parse_special && text.substr(i, kEndText.size()) == kEndText) {
      ids.push_back(kEnd);
      i += kEndText.size();
    } else if (options.parse_special && text.substr(i, kStartText.size()) == kStartText) {
      ids.push_back(kStart);
      i += kStartText.size();
    } else {
      ids.push_back(static_cast<unsigned char>(text[i++]));
    }
  }
  return ids;
}

std::string ByteTokenizer::TokenBytes(int32_t id, bool render_special) const {
  if (id < 256) return std::string(1, static_cast<char>(id));
  if (!render_special) return "";
  return std::string(id == kEnd ? kEndText : kStartText);
}

FakeModel::FakeModel(bool with_tokenizer) : with_tokenizer_(with_tokenizer) {
  config_.name = "Fake";
  config_.vocab = 258;
  config_.context = 4096;
  config_.n_layers = 2;
  if (with_tokenizer) {
    chat_template_ =
        "{% for message in messages %}<|start|>{{ message['role'] }}:{{ message['content'] }}"
        "<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>{% endif %}";
  }
}

FakeEngine::FakeEngine(uint32_t slot_context, uint32_t slots, uint32_t max_queue,
                       bool with_tokenizer)
    : slot_context_(slot_context) {
  options_.model = std::make_shared<FakeModel>(with_tokenizer);
  options_.rig.name = "fake-rig";
  options_.rig.devices.resize(2);
  options_.rig.link.name = "fake-link";
  options_.limits.context = slot_context * slots;
  options_.limits.max_sequences = slots;
  options_.max_queue = max_queue;
  info_.fidelity = Fidelity::kEmulated;
  info_.transports = {"d0-d1 local"};
  info_.planned.plan.plugin = "fake";
  info_.planned.plan.n_devices = 2;
  info_.planned.plugin.name = "fake";
  info_.planned.plugin.version = "1";
  info_.planned.plan_hash = "0123456789abcdef0123456789abcdef";
  for (int32_t d : {0, 1, -1}) {
    info_.planned.verified.memory.rows.push_back({.device = DeviceId{d}, .weights = Bytes{100}});
  }
}

EngineCounters FakeEngine::counters() const {
  std::lock_guard lock(mutex_);
  EngineCounters counters = counters_;
  uint32_t open = static_cast<uint32_t>(open_.size());
  counters.running = std::min(open, options_.limits.max_sequences);
  counters.waiting = open - counters.running;
  return counters;
}

RequestId FakeEngine::Submit(Request request, std::shared_ptr<RequestListener> listener) {
  if (request.prompt.empty()) Fail(ErrorCode::kInvalidArgument, "request: no tokens");
  if (request.prompt.size() + (request.max_tokens > 0) > slot_context_) {
    Fail(ErrorCode::kInvalidArgument, "request: the prompt does not fit");
  }
  auto active = std::make_shared<Active>();
  active->answer = script ? script(request) : std::vector<int32_t>();
  if (!script) {
    while (active->answer.size() < slot_context_) {
      active->answer.insert(active->answer.end(), request.prompt.begin(), request.prompt.end());
    }
  }
  active->listener = std::move(listener);
  active->stats.prompt_tokens = static_cast<uint32_t>(request.prompt.size());
  active->stats.fidelity = info_.fidelity;
  std::lock_guard lock(mutex_);
  if (open_.size() >= options_.limits.max_sequences + options_.max_queue) {
    Fail(ErrorCode::kOverloaded, "engine: too many requests are waiting");
  }
  active->id = next_id_++;
  submitted_.push_back(request);
  active->request = std::move(request);
  open_.push_back(active);
  changed_.notify_all();
  return active->id;
}

void FakeEngine::Cancel(RequestId id) {
  std::lock_guard lock(mutex_);
  for (auto& active : open_) active->cancelled |= active->id == id;
}

void FakeEngine::CancelAll() {
  std::lock_guard lock(mutex_);
  for (auto& active : open_) active->cancelled = true;
}

bool FakeEngine::HasWork() const {
  std::lock_guard lock(mutex_);
  return !open_.empty();
}

bool FakeEngine::Step() {
  int64_t step = steps_.fetch_add(1);
  if (int us = step_us.load(); us > 0) std::this_thread::sleep_for(std::chrono::microseconds(us));
  std::vector<std::shared_ptr<Active>> batch;
  std::vector<bool> cancelled;
  {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < open_.size(); ++i) {
      if (i >= options_.limits.max_sequences && !open_[i]->cancelled) continue;
      batch.push_back(open_[i]);
      cancelled.push_back(open_[i]->cancelled);
    }
  }
  uint32_t prefill = 0, decode = 0;
  for (size_t i = 0; i < batch.size(); ++i) {
    Active& active = *batch[i];
    (active.prefilled ? decode : prefill) += 1;
    if (cancelled[i]) {
      End(active, FinishReason::kCancelled, "");
    } else if (step == fail_at_step.load()) {
      End(active, FinishReason::kError, "device d1 is lost");
    } else {
      Advance(active);
    }
  }
  if (prefill > 0) Report(true, prefill);
  if (decode > 0) Report(false, decode);
  return !batch.empty();
}

bool FakeEngine::Advance(Active& active) {
  const Request& request = active.request;
  if (!active.prefilled) {
    active.prefilled = true;
    ++active.stats.prefill.steps;
    active.stats.prefill.link_bytes += Bytes{1000};
    if (request.prompt_logits) {
      // The true next token is 2 nats above all others.
      std::vector<float> logits(request.prompt.size() * 258, 0.0f);
      for (size_t i = 0; i + 1 < request.prompt.size(); ++i) {
        logits[i * 258 + static_cast<size_t>(request.prompt[i + 1])] = 2.0f;
      }
      active.listener->OnPromptLogits(0, logits);
    }
  } else {
    ++active.stats.decode.steps;
    active.stats.decode.link_bytes += Bytes{10};
    active.stats.decode.step_time += Nanos{1000000};
    active.stats.decode.link_busy += Nanos{250000};
  }
  uint32_t limit = std::min<uint32_t>(request.max_tokens,
                                      slot_context_ - static_cast<uint32_t>(request.prompt.size()));
  bool scripted_end = active.generated >= active.answer.size();
  if (active.generated < limit) {
    TokenEvent event;
    event.id = scripted_end ? ByteTokenizer::kEnd : active.answer[active.generated];
    event.index = active.generated++;
    event.time = clock_.Now();
    event.logprob = nan_logprobs ? NAN : -0.5f;
    for (int i = 0; i < request.logprobs; ++i) event.top.emplace_back(event.id + i, -0.5f - i);
    active.stats.generated_tokens = active.generated;
    {
      std::lock_guard lock(mutex_);
      ++counters_.generated_tokens;
    }
    active.listener->OnToken(event);
    if (event.id == ByteTokenizer::kEnd && !request.ignore_eos) {
      End(active, FinishReason::kStop, "");
      return true;
    }
  }
  if (active.generated < limit) return false;
  End(active, FinishReason::kLength, "");
  return true;
}

void FakeEngine::End(Active& active, FinishReason reason, const std::string& error) {
  {
    std::lock_guard lock(mutex_);
    counters_.finished_cancelled += reason == FinishReason::kCancelled;
    counters_.finished_stop += reason == FinishReason::kStop;
    counters_.finished_length += reason == FinishReason::kLength;
    counters_.finished_error += reason == FinishReason::kError;
    std::erase_if(open_, [&](const auto& other) { return other.get() == &active; });
    changed_.notify_all();
  }
  active.listener->OnDone(reason, error, active.stats);
}

void FakeEngine::Report(bool prefill, uint32_t rows) {
  StepReport report;
  report.phase = prefill ? ProgramKind::kPrefill : ProgramKind::kDecode;
  report.shape.microbatches = {{.rows = rows, .sampled = rows}};
  report.wall = Nanos{2000000};
  report.timeline.length = Nanos{1000000};
  report.timeline.link_busy = Nanos{250000};
  report.timeline.exposed_comm = Nanos{100000};
  for (int32_t d : {0, 1}) {
    report.timeline.devices.push_back({.device = DeviceId{d},
                                       .compute = Nanos{700000},
                                       .launch = Nanos{100000},
                                       .exposed_comm = Nanos{100000},
                                       .wait = Nanos{60000},
                                       .idle = Nanos{40000}});
  }
  std::vector<HopRow> hops = {{.kind = OpKind::kAllReduce,
                               .src = DeviceId{0},
                               .dst = DeviceId{1},
                               .bytes = Bytes{64} * rows},
                              {.kind = OpKind::kAllReduce,
                               .src = DeviceId{1},
                               .dst = DeviceId{0},
                               .bytes = Bytes{64} * rows}};
  report.hops = hops;
  for (StepObserver* observer : observers_) observer->OnStep(report);
}

std::vector<Request> FakeEngine::submitted() const {
  std::lock_guard lock(mutex_);
  return submitted_;
}

bool FakeEngine::WaitForOpen(uint32_t count, std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] { return open_.size() == count; });
}

bool FakeEngine::WaitForCancelled(uint64_t count, std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] { return counters_.finished_cancelled >= count; });
}

}  // namespace tandem::testing
