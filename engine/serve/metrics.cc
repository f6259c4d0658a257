#include "engine/serve/metrics.h"

namespace tandem {
namespace {

using nlohmann::json;

double SecondsBetween(std::chrono::steady_clock::time_point from,
                      std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// The parts of a device's step, in the order of their precedence (plan/schedule.h).
std::vector<std::pair<const char*, Nanos>> Parts(const DeviceAttribution& device) {
  return {{"compute", device.compute},
          {"launch", device.launch},
          {"exposed_comm", device.exposed_comm},
          {"wait", device.wait},
          {"idle", device.idle}};
}

}  // namespace

// Edges: where a virtual CPU device and a large GPU both leave a visible shape.
Metrics::Metrics(Engine& engine, std::string model_id)
    : engine_(engine),
      model_id_(std::move(model_id)),
      first_token_(
          {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}),
      between_tokens_({0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15,
                       0.25, 0.5, 1, 2.5, 5, 10}),
      request_({0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800}) {
  engine_.AddObserver(&steps_);
}

Metrics::~Metrics() { engine_.RemoveObserver(&steps_); }

void Metrics::CountRequest(const std::string& route, int status) {
  std::lock_guard lock(mutex_);
  ++requests_[{route, status}];
}

void Metrics::CountDisconnect() {
  std::lock_guard lock(mutex_);
  ++disconnects_;
}

void Metrics::ObserveFirstToken(double seconds) {
  std::lock_guard lock(mutex_);
  first_token_.Observe(seconds);
}

void Metrics::ObserveBetweenTokens(double seconds) {
  std::lock_guard lock(mutex_);
  between_tokens_.Observe(seconds);
}

void Metrics::ObserveRequest(double seconds) {
  std::lock_guard lock(mutex_);
  request_.Observe(seconds);
}

std::string Metrics::Prometheus(uint32_t connections) const {
  PrometheusText text;
  WriteEngine(text);
  WriteSteps(text);
  WriteRequests(text, connections);
  return text.text();
}

void Metrics::WriteEngine(PrometheusText& text) const {
  const EngineInfo& info = engine_.info();
  text.Family("tandem_plan_info", "gauge", "The plan that runs; always 1.");
  text.Sample({{"model", model_id_},
               {"plugin", info.planned.plugin.name},
               {"plan_hash", info.planned.plan_hash},
               {"rig", engine_.options().rig.name},
               {"wire", ToString(info.planned.plan.wire)},
               {"fidelity", ToString(info.fidelity)}},
              1);
  EngineCounters c = engine_.counters();
  text.Family("tandem_requests_running", "gauge", "Generations that hold a slot.");
  text.Sample({}, c.running);
  text.Family("tandem_requests_waiting", "gauge", "Generations waiting for a slot.");
  text.Sample({}, c.waiting);
  text.Family("tandem_prompt_tokens_total", "counter", "Prompt tokens run.");
  text.Sample({}, static_cast<double>(c.prompt_tokens));
  text.Family("tandem_generated_tokens_total", "counter", "Tokens generated.");
  text.Sample({}, static_cast<double>(c.generated_tokens));
  text.Family("tandem_generations_finished_total", "counter", "Generations ended, by reason.");
  text.Sample({{"reason", "stop"}}, static_cast<double>(c.finished_stop));
  text.Sample({{"reason", "length"}}, static_cast<double>(c.finished_length));
  text.Sample({{"reason", "cancelled"}}, static_cast<double>(c.finished_cancelled));
  text.Sample({{"reason", "error"}}, static_cast<double>(c.finished_error));
  text.Family("tandem_kv_pages_used", "gauge", "Pages of the KV cache in use.");
  text.Sample({}, c.kv_pages_used);
  text.Family("tandem_kv_pages", "gauge", "Pages of the KV cache.");
  text.Sample({}, c.kv_pages_total);
}

void Metrics::WriteSteps(PrometheusText& text) const {
  StepTotals::Phases phases = steps_.Read();
  auto each = [&](const char* name, const char* help, auto value) {
    text.Family(name, "counter", help);
    for (size_t p = 0; p < phases.size(); ++p) {
      text.Sample({{"phase", StepTotals::PhaseName(p)}}, value(phases[p]));
    }
  };
  using Phase = StepTotals::Phase;
  each("tandem_steps_total", "Steps run.", [](const Phase& p) { return double(p.steps); });
  each("tandem_step_rows_total", "Tokens that ran through steps.",
       [](const Phase& p) { return double(p.rows); });
  each("tandem_step_seconds_total", "Length of all steps, in rig time.",
       [](const Phase& p) { return p.length.Seconds(); });
  each("tandem_step_wall_seconds_total", "What the steps took on this machine.",
       [](const Phase& p) { return p.wall.Seconds(); });
  each("tandem_link_busy_seconds_total", "Part of the steps with something on a link, in rig time.",
       [](const Phase& p) { return p.link_busy.Seconds(); });
  each("tandem_link_exposed_seconds_total",
       "Part of the steps the slowest device waited for a link, in rig time.",
       [](const Phase& p) { return p.exposed_comm.Seconds(); });
  text.Family("tandem_device_busy_seconds_total", "counter",
              "Time a device computed, launch gaps included, in rig time.");
  for (size_t p = 0; p < phases.size(); ++p) {
    for (const DeviceAttribution& d : phases[p].devices) {
      text.Sample({{"device", DeviceName(d.device)}, {"phase", StepTotals::PhaseName(p)}},
                  (d.compute + d.launch).Seconds());
    }
  }
  text.Family("tandem_device_seconds_total", "counter",
              "Where each device's steps went, in rig time; the parts sum to the steps.");
  for (size_t p = 0; p < phases.size(); ++p) {
    for (const DeviceAttribution& d : phases[p].devices) {
      for (const auto& [part, time] : Parts(d)) {
        text.Sample(
            {{"device", DeviceName(d.device)}, {"phase", StepTotals::PhaseName(p)}, {"part", part}},
            time.Seconds());
      }
    }
  }
  WriteLinks(text, phases);
}

void Metrics::WriteLinks(PrometheusText& text, const StepTotals::Phases& phases) const {
  text.Family("tandem_link_bytes_total", "counter",
              "Bytes counted on each hop, by what moved them.");
  for (size_t p = 0; p < phases.size(); ++p) {
    for (const auto& [key, bytes] : phases[p].bytes) {
      text.Sample({{"src", DeviceName(key.src)},
                   {"dst", DeviceName(key.dst)},
                   {"path", ToString(key.path)},
                   {"op", OpName(key.op)},
                   {"phase", StepTotals::PhaseName(p)}},
                  static_cast<double>(bytes));
    }
  }
}

void Metrics::WriteRequests(PrometheusText& text, uint32_t connections) const {
  std::lock_guard lock(mutex_);
  text.Family("tandem_http_connections", "gauge", "Open connections.");
  text.Sample({}, connections);
  text.Family("tandem_http_requests_total", "counter", "Requests answered, by route and status.");
  for (const auto& [key, count] : requests_) {
    text.Sample({{"route", key.first}, {"status", std::to_string(key.second)}},
                static_cast<double>(count));
  }
  text.Family("tandem_http_disconnects_total", "counter", "Clients that left before the end.");
  text.Sample({}, static_cast<double>(disconnects_));
  text.Family("tandem_time_to_first_token_seconds", "histogram",
              "From a generation's submission to its first token, on the wall clock.");
  text.Samples(first_token_);
  text.Family("tandem_inter_token_seconds", "histogram",
              "Between two tokens of a generation, on the wall clock.");
  text.Samples(between_tokens_);
  text.Family("tandem_request_seconds", "histogram",
              "From a generation's submission to its end, on the wall clock.");
  text.Samples(request_);
}

json Metrics::Json(uint32_t connections) const {
  const EngineInfo& info = engine_.info();
  EngineCounters c = engine_.counters();
  StepTotals::Phases phases = steps_.Read();
  json result{{"uptime_s", SecondsBetween(start_, std::chrono::steady_clock::now())},
              {"fidelity", ToString(info.fidelity)},
              {"connections", connections},
              {"running", c.running},
              {"waiting", c.waiting},
              {"prompt_tokens", c.prompt_tokens},
              {"generated_tokens", c.generated_tokens},
              {"kv_pages_used", c.kv_pages_used},
              {"kv_pages", c.kv_pages_total}};
  for (size_t p = 0; p < phases.size(); ++p) {
    const StepTotals::Phase& phase = phases[p];
    json devices = json::array(), links = json::array();
    for (const DeviceAttribution& d : phase.devices) {
      json device{{"device", DeviceName(d.device)}};
      for (const auto& [part, time] : Parts(d)) device[std::string(part) + "_s"] = time.Seconds();
      devices.push_back(std::move(device));
    }
    for (const auto& [key, bytes] : phase.bytes) {
      links.push_back({{"src", DeviceName(key.src)},
                       {"dst", DeviceName(key.dst)},
                       {"path", ToString(key.path)},
                       {"op", OpName(key.op)},
                       {"bytes", bytes}});
    }
    result[StepTotals::PhaseName(p)] = {{"steps", phase.steps},
                                        {"rows", phase.rows},
                                        {"step_s", phase.length.Seconds()},
                                        {"wall_s", phase.wall.Seconds()},
                                        {"link_busy_s", phase.link_busy.Seconds()},
                                        {"exposed_comm_s", phase.exposed_comm.Seconds()},
                                        {"devices", std::move(devices)},
                                        {"links", std::move(links)}};
  }
  return result;
}

void RequestTimer::OnToken() {
  Clock::time_point now = Clock::now();
  if (first_) {
    metrics_.ObserveFirstToken(SecondsBetween(start_, now));
  } else {
    metrics_.ObserveBetweenTokens(SecondsBetween(last_, now));
  }
  first_ = false;
  last_ = now;
}

void RequestTimer::OnDone() { metrics_.ObserveRequest(SecondsBetween(start_, Clock::now())); }

}  // namespace tandem
