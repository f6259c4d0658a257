// The lab's HTTP client: streamed completions against a server on the loopback interface.
#include <httplib.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "engine/base/clock.h"
#include "engine/lab/workload.h"

namespace tandem {
namespace {

std::string RequestBody(const WorkloadSpec& spec, uint32_t vocab, std::mt19937_64& random) {
  std::vector<int32_t> prompt(spec.prompt_tokens);
  for (int32_t& id : prompt) id = static_cast<int32_t>(random() % vocab);
  return nlohmann::json{{"model", "tandem"},
                        {"prompt", prompt},
                        {"max_tokens", spec.output_tokens},
                        {"temperature", 0},
                        {"ignore_eos", true},
                        {"stream", true},
                        {"stream_options", {{"include_usage", true}}}}
      .dump();
}

// Takes whole "data: ..." events off the front of `buffer`; counts tokens as they come.
void ReadEvents(std::string& buffer, const WallClock& clock, RequestSample& sample) {
  size_t end;
  while ((end = buffer.find("\n\n")) != std::string::npos) {
    std::string event = buffer.substr(0, end);
    buffer.erase(0, end + 2);
    if (!event.starts_with("data: ") || event == "data: [DONE]") continue;
    nlohmann::json json = nlohmann::json::parse(event.substr(6), nullptr, false);
    if (json.is_discarded() || json.contains("error")) {
      sample.failed = true;
      continue;
    }
    if (json.contains("usage") && json["usage"].is_object()) {
      sample.output_tokens = json["usage"].value("completion_tokens", sample.output_tokens);
    }
    // One chunk a token; a chunk without choices carries only the usage.
    if (json.contains("choices") && !json["choices"].empty() &&
        json["choices"][0]["finish_reason"].is_null()) {
      Nanos now = clock.Now();
      if (sample.token_times.empty()) sample.first_token = now;
      sample.token_times.push_back(now);
    }
  }
}

void Send(int port, const std::string& body, const WallClock& clock, RequestSample& sample) {
  httplib::Client client("127.0.0.1", port);
  client.set_read_timeout(600, 0);
  client.set_tcp_nodelay(true);
  sample.sent = clock.Now();
  std::string buffer;
  httplib::Request request;
  request.method = "POST";
  request.path = "/v1/completions";
  request.set_header("Content-Type", "application/json");
  request.body = body;
  request.content_receiver = [&](const char* data, size_t size, uint64_t, uint64_t) {
    buffer.append(data, size);
    ReadEvents(buffer, clock, sample);
    return true;
  };
  auto result = client.send(request);
  sample.done = clock.Now();
  if (!result || result->status != 200) sample.failed = true;
}

}  // namespace

std::vector<RequestSample> RunOverHttp(int port, uint32_t vocab, const WorkloadSpec& spec,
                                       uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::string> bodies;
  for (uint32_t i = 0; i < spec.requests; ++i) bodies.push_back(RequestBody(spec, vocab, random));
  std::vector<RequestSample> samples(spec.requests);
  bool open = spec.loop == "open";
  std::vector<Nanos> due(spec.requests);
  if (open) due = PoissonArrivals(spec.requests, spec.rate, seed);
  std::atomic<size_t> next{0};
  WallClock clock;
  // Open loop: a thread a request that may be in flight; each takes the next arrival in turn.
  size_t users =
      open ? std::min<size_t>(spec.requests, 256) : std::min(spec.concurrency, spec.requests);
  std::vector<std::thread> threads;
  for (size_t u = 0; u < users; ++u) {
    threads.emplace_back([&] {
      for (size_t i = next++; i < samples.size(); i = next++) {
        if (open) {
          Nanos wait = due[i] - clock.Now();
          if (wait.value > 0) std::this_thread::sleep_for(std::chrono::nanoseconds(wait.value));
          samples[i].scheduled = due[i];
        } else {
          samples[i].scheduled = clock.Now();
        }
        Send(port, bodies[i], clock, samples[i]);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  return samples;
}

}  // namespace tandem
