#include "engine/lab/workload.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <thread>

#include "engine/base/error.h"
#include "engine/lab/stats.h"

namespace tandem {
namespace {

// A uniform number in (0, 1] from 53 random bits: the same on every standard library.
double Uniform(std::mt19937_64& random) {
  return (static_cast<double>(random() >> 11) + 1.0) * 0x1.0p-53;
}

class Client;

// Collects one request's times on the engine's clock, and tells the client when it ends.
class SampleListener final : public RequestListener {
 public:
  SampleListener(RequestSample& sample, Client& client) : sample_(sample), client_(client) {}
  void OnToken(const TokenEvent& event) override {
    if (sample_.token_times.empty()) sample_.first_token = event.time;
    sample_.token_times.push_back(event.time);
  }
  void OnDone(FinishReason reason, const std::string& error, const RequestStats& stats) override;

 private:
  RequestSample& sample_;
  Client& client_;
};

// Submits the workload's requests to one engine at their times.
class Client {
 public:
  Client(Engine& engine, const WorkloadSpec& spec, uint64_t seed)
      : engine_(engine), spec_(spec), random_(seed), samples_(spec.requests) {}

  std::vector<RequestSample> Run(uint64_t seed) {
    Nanos origin = engine_.clock().Now();
    std::vector<Nanos> due;
    if (spec_.loop == "open") {
      due = PoissonArrivals(spec_.requests, spec_.rate, seed);
      for (Nanos& t : due) t += origin;
      Drive(due);
    } else {
      for (uint32_t user = 0; user < std::min(spec_.concurrency, spec_.requests); ++user)
        Submit(origin);
      while (engine_.HasWork()) engine_.Step();
    }
    for (RequestSample& s : samples_) Shift(s, origin);
    return std::move(samples_);
  }

  // A closed loop's user sends the next request the moment the last one ended.
  void OnEnd(Nanos when) {
    if (spec_.loop == "closed" && next_ < spec_.requests) Submit(when);
  }

 private:
  void Submit(Nanos scheduled) {
    RequestSample& sample = samples_[next_++];
    Request request;
    for (uint32_t i = 0; i < spec_.prompt_tokens; ++i) {
      request.prompt.push_back(static_cast<int32_t>(random_() % engine_.model().config().vocab));
    }
    request.max_tokens = spec_.output_tokens;
    request.ignore_eos = true;
    request.scheduled = scheduled;
    sample.scheduled = scheduled;
    sample.sent = std::max(scheduled, engine_.clock().Now());
    try {
      engine_.Submit(std::move(request), std::make_shared<SampleListener>(sample, *this));
    } catch (const Error&) {  // the queue is full: counted as a failed request
      sample.failed = true;
    }
  }

  // Open loop: what is due is submitted before the step that would start after it.
  void Drive(const std::vector<Nanos>& due) {
    while (next_ < due.size() || engine_.HasWork()) {
      bool work = engine_.HasWork();
      while (next_ < due.size() && (!work ? false : due[next_] <= engine_.NextStepTime()))
        Submit(due[next_]);
      if (engine_.HasWork()) {
        engine_.Step();
        continue;
      }
      if (next_ < due.size()) {
        WaitUntil(due[next_]);
        Submit(due[next_]);
      }
    }
  }

  void WaitUntil(Nanos when) {
    if (engine_.clock().IsVirtual()) {
      engine_.AdvanceTo(when);
      return;
    }
    Nanos wait = when - engine_.clock().Now();
    if (wait.value > 0) std::this_thread::sleep_for(std::chrono::nanoseconds(wait.value));
  }

  static void Shift(RequestSample& s, Nanos origin) {
    s.scheduled -= origin;
    s.sent -= origin;
    s.first_token -= origin;
    s.done -= origin;
    for (Nanos& t : s.token_times) t -= origin;
  }

  Engine& engine_;
  const WorkloadSpec& spec_;
  std::mt19937_64 random_;
  std::vector<RequestSample> samples_;
  size_t next_ = 0;
};

void SampleListener::OnDone(FinishReason reason, const std::string&, const RequestStats& stats) {
  sample_.done = stats.done;
  sample_.output_tokens = stats.generated_tokens;
  sample_.failed = reason == FinishReason::kError || reason == FinishReason::kCancelled;
  client_.OnEnd(stats.done);
}

}  // namespace

std::vector<Nanos> PoissonArrivals(uint32_t n, double rate, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<double> times;
  double at = 0;
  for (uint32_t i = 0; i < n; ++i) {
    at += -std::log(Uniform(random));
    times.push_back(at);
  }
  std::vector<Nanos> arrivals;
  double scale = n == 0 ? 0 : static_cast<double>(n) / rate / at;
  for (double t : times) arrivals.push_back(NanosFromSeconds(t * scale));
  return arrivals;
}

ServeResult SumSamples(const WorkloadSpec& spec, const std::vector<RequestSample>& samples) {
  ServeResult result;
  result.loop = spec.loop;
  result.client = spec.client;
  result.rate_requested = spec.loop == "open" ? spec.rate : 0;
  result.requests = static_cast<uint32_t>(samples.size());
  std::vector<double> ttft, tpot, itl, e2e, queue;
  Nanos last_scheduled, end;
  uint64_t tokens = 0;
  for (const RequestSample& s : samples) {
    last_scheduled = std::max(last_scheduled, s.scheduled);
    if (s.failed || s.token_times.empty()) {
      ++result.failed;
      continue;
    }
    ++result.completed;
    tokens += s.output_tokens;
    end = std::max(end, s.done);
    ttft.push_back((s.first_token - s.scheduled).Millis());
    e2e.push_back((s.done - s.scheduled).Millis());
    queue.push_back((s.sent - s.scheduled).Millis());
    size_t n = s.token_times.size();
    if (n > 1)
      tpot.push_back((s.token_times.back() - s.first_token).Millis() / static_cast<double>(n - 1));
    for (size_t i = 1; i < n; ++i)
      itl.push_back((s.token_times[i] - s.token_times[i - 1]).Millis());
  }
  result.duration = end;
  if (last_scheduled.value > 0)
    result.rate_achieved = static_cast<double>(samples.size()) / last_scheduled.Seconds();
  if (end.value > 0) result.output_tokens_per_s = static_cast<double>(tokens) / end.Seconds();
  result.ttft_ms = Summarize(ttft);
  result.tpot_ms = Summarize(tpot);
  result.itl_ms = Summarize(itl);
  result.e2e_ms = Summarize(e2e);
  result.queue_ms = Summarize(queue);
  return result;
}

std::vector<RequestSample> RunInProcess(Engine& engine, const WorkloadSpec& spec, uint64_t seed) {
  return Client(engine, spec, seed).Run(seed);
}

}  // namespace tandem
