// Requests over time: a closed loop of users, or Poisson arrivals, through the engine in process
// (on either clock) or through HTTP (on the wall clock). Latency counts from the scheduled time.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "engine/lab/record.h"
#include "engine/lab/scenario.h"

namespace tandem {

// Times of n arrivals at `rate` a second: exponential gaps by `seed`, rescaled so that the last
// lands at n / rate, which removes the seed's own noise from the rate.
std::vector<Nanos> PoissonArrivals(uint32_t n, double rate, uint64_t seed);

// One request as a client saw it, on the client's clock.
struct RequestSample {
  Nanos scheduled, sent, first_token, done;
  std::vector<Nanos> token_times;
  uint32_t output_tokens = 0;
  bool failed = false;
};

// ttft = first token - scheduled; tpot = (last - first) / (n - 1); itl: every gap between tokens;
// e2e = done - scheduled; queue = sent - scheduled.
ServeResult SumSamples(const WorkloadSpec& spec, const std::vector<RequestSample>& samples);

// Runs the workload through the engine in process and returns its samples.
std::vector<RequestSample> RunInProcess(Engine& engine, const WorkloadSpec& spec, uint64_t seed);

// A server that answers on 127.0.0.1 while it lives.
class RunningServer {
 public:
  virtual ~RunningServer() = default;
  virtual int port() const = 0;
};
using StartServer = std::function<std::unique_ptr<RunningServer>(Engine&)>;

// Runs the workload as an HTTP client of a server on `port`: streamed completions of token-id
// prompts.
std::vector<RequestSample> RunOverHttp(int port, uint32_t vocab, const WorkloadSpec& spec,
                                       uint64_t seed);

}  // namespace tandem
