// What /metrics and the live page show: the engine's counters, the steps' totals, requests and
// their latencies as the server saw them on the wall clock.
//
// Any thread. Registers itself as the engine's observer for as long as it lives.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "engine/run/engine.h"
#include "engine/serve/histogram.h"
#include "engine/serve/prometheus_text.h"
#include "engine/serve/step_totals.h"

namespace tandem {

class Metrics {
 public:
  // `engine` outlives this object. `model_id` is the name the server gives the model.
  Metrics(Engine& engine, std::string model_id);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  void CountRequest(const std::string& route, int status);
  void CountDisconnect();
  void ObserveFirstToken(double seconds);
  void ObserveBetweenTokens(double seconds);
  void ObserveRequest(double seconds);

  // Prometheus' text format. Names are defined where they are written, by their HELP lines.
  std::string Prometheus(uint32_t connections) const;
  // The same for the live page, with what it needs of the rig.
  nlohmann::json Json(uint32_t connections) const;

 private:
  void WriteEngine(PrometheusText& text) const;
  void WriteSteps(PrometheusText& text) const;
  void WriteLinks(PrometheusText& text, const StepTotals::Phases& phases) const;
  void WriteRequests(PrometheusText& text, uint32_t connections) const;

  Engine& engine_;
  std::string model_id_;
  StepTotals steps_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  mutable std::mutex mutex_;  // guards what follows
  std::map<std::pair<std::string, int>, uint64_t> requests_;
  uint64_t disconnects_ = 0;
  Histogram first_token_, between_tokens_, request_;
};

// One request's latencies: from its arrival to its first token, between tokens, to its end.
// Belongs to the engine's thread once the request is submitted.
class RequestTimer {
 public:
  explicit RequestTimer(Metrics& metrics) : metrics_(metrics) {}
  void OnToken();
  void OnDone();

 private:
  using Clock = std::chrono::steady_clock;
  Metrics& metrics_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_;
  bool first_ = true;
};

}  // namespace tandem
