// Records to JSON and back. Every name here is a name in results/METRICS.md.
#include "engine/lab/record.h"

#include <fmt/core.h>

#include "engine/base/device_name.h"
#include "engine/base/error.h"
#include "engine/plan/memory_json.h"

namespace tandem {
namespace {

using nlohmann::json;

DeviceId DeviceFromLabel(const std::string& label) {
  if (label == "host") return kHost;
  return DeviceId{std::stoi(label.substr(1))};
}

json NanosArray(const std::vector<Nanos>& times) {
  json array = json::array();
  for (Nanos t : times) array.push_back(t.value);
  return array;
}

std::vector<Nanos> NanosFrom(const json& array) {
  std::vector<Nanos> times;
  for (const json& t : array) times.push_back(Nanos{t.get<int64_t>()});
  return times;
}

json AttributionJson(const std::vector<DeviceAttribution>& parts) {
  json array = json::array();
  for (const DeviceAttribution& a : parts) {
    array.push_back({{"device", DeviceName(a.device)},
                     {"compute_ns", a.compute.value},
                     {"launch_ns", a.launch.value},
                     {"exposed_comm_ns", a.exposed_comm.value},
                     {"wait_ns", a.wait.value},
                     {"idle_ns", a.idle.value}});
  }
  return array;
}

std::vector<DeviceAttribution> AttributionFrom(const json& array) {
  std::vector<DeviceAttribution> parts;
  for (const json& a : array) {
    parts.push_back({DeviceFromLabel(a.at("device")), Nanos{a.at("compute_ns")},
                     Nanos{a.at("launch_ns")}, Nanos{a.at("exposed_comm_ns")},
                     Nanos{a.at("wait_ns")}, Nanos{a.at("idle_ns")}});
  }
  return parts;
}

json PhaseJson(const PhaseResult& p) {
  json traffic = json::array();
  for (const TrafficSum& t : p.traffic) {
    traffic.push_back(
        {{"op", t.op}, {"path", t.path}, {"bytes", t.bytes.value}, {"count", t.count}});
  }
  return {{"tokens", p.tokens},
          {"sequences", p.sequences},
          {"context", p.context},
          {"steps", p.steps},
          {"time_ns", p.time.value},
          {"tokens_per_s", p.tokens_per_s},
          {"link_share", p.link_share},
          {"link_bytes", p.link_bytes.value},
          {"link_busy_ns", p.link_busy.value},
          {"attribution", AttributionJson(p.attribution)},
          {"traffic", traffic},
          {"step_ns", NanosArray(p.step_times)},
          {"clipped_ops", p.clipped_ops}};
}

PhaseResult PhaseFrom(const json& j) {
  PhaseResult p;
  p.tokens = j.at("tokens");
  p.sequences = j.at("sequences");
  p.context = j.at("context");
  p.steps = j.at("steps");
  p.time = Nanos{j.at("time_ns")};
  p.tokens_per_s = j.at("tokens_per_s");
  p.link_share = j.at("link_share");
  p.link_bytes = Bytes{j.at("link_bytes")};
  p.link_busy = Nanos{j.at("link_busy_ns")};
  p.attribution = AttributionFrom(j.at("attribution"));
  for (const json& t : j.at("traffic")) {
    p.traffic.push_back({t.at("op"), t.at("path"), Bytes{t.at("bytes")}, t.at("count")});
  }
  p.step_times = NanosFrom(j.at("step_ns"));
  p.clipped_ops = j.at("clipped_ops");
  return p;
}

// A percentile is shown only where at least one sample lies beyond it: n * (1 - p) >= 1.
json LatencyJson(const LatencySummary& s) {
  json j{{"n", s.n}};
  if (s.n == 0) return j;
  j["mean"] = s.mean;
  j["p50"] = s.p50;
  j["max"] = s.max;
  if (s.n >= 10) j["p90"] = s.p90;
  if (s.n >= 20) j["p95"] = s.p95;
  if (s.n >= 100) j["p99"] = s.p99;
  return j;
}

LatencySummary LatencyFrom(const json& j) {
  LatencySummary s;
  s.n = j.at("n");
  s.mean = j.value("mean", 0.0);
  s.p50 = j.value("p50", 0.0);
  s.p90 = j.value("p90", 0.0);
  s.p95 = j.value("p95", 0.0);
  s.p99 = j.value("p99", 0.0);
  s.max = j.value("max", 0.0);
  return s;
}

json ServeJson(const ServeResult& s) {
  return {{"loop", s.loop},
          {"client", s.client},
          {"rate_requested", s.rate_requested},
          {"rate_achieved", s.rate_achieved},
          {"requests", s.requests},
          {"completed", s.completed},
          {"failed", s.failed},
          {"duration_ns", s.duration.value},
          {"output_tokens_per_s", s.output_tokens_per_s},
          {"ttft_ms", LatencyJson(s.ttft_ms)},
          {"tpot_ms", LatencyJson(s.tpot_ms)},
          {"itl_ms", LatencyJson(s.itl_ms)},
          {"e2e_ms", LatencyJson(s.e2e_ms)},
          {"queue_ms", LatencyJson(s.queue_ms)}};
}

ServeResult ServeFrom(const json& j) {
  ServeResult s;
  s.loop = j.at("loop");
  s.client = j.at("client");
  s.rate_requested = j.at("rate_requested");
  s.rate_achieved = j.at("rate_achieved");
  s.requests = j.at("requests");
  s.completed = j.at("completed");
  s.failed = j.at("failed");
  s.duration = Nanos{j.at("duration_ns")};
  s.output_tokens_per_s = j.at("output_tokens_per_s");
  s.ttft_ms = LatencyFrom(j.at("ttft_ms"));
  s.tpot_ms = LatencyFrom(j.at("tpot_ms"));
  s.itl_ms = LatencyFrom(j.at("itl_ms"));
  s.e2e_ms = LatencyFrom(j.at("e2e_ms"));
  s.queue_ms = LatencyFrom(j.at("queue_ms"));
  return s;
}

json ModelJson(const ModelRecord& m) {
  const ModelConfig& c = m.config;
  return {{"name", m.name},
          {"source", m.source},
          {"parameters", m.parameters},
          {"weight_bytes", m.weight_bytes.value},
          {"weight_type", m.weight_type},
          {"hash", m.hash},
          {"shape",
           {{"layers", c.n_layers},
            {"hidden", c.hidden},
            {"heads", c.n_heads},
            {"kv_heads", c.n_kv_heads},
            {"head_dim", c.head_dim},
            {"ffn", c.ffn},
            {"vocab", c.vocab},
            {"context", c.context}}}};
}

ModelRecord ModelFrom(const json& j) {
  ModelRecord m;
  m.name = j.at("name");
  m.source = j.at("source");
  m.parameters = j.at("parameters");
  m.weight_bytes = Bytes{j.at("weight_bytes")};
  m.weight_type = j.at("weight_type");
  m.hash = j.at("hash");
  const json& shape = j.at("shape");
  m.config.n_layers = shape.at("layers");
  m.config.hidden = shape.at("hidden");
  m.config.n_heads = shape.at("heads");
  m.config.n_kv_heads = shape.at("kv_heads");
  m.config.head_dim = shape.at("head_dim");
  m.config.ffn = shape.at("ffn");
  m.config.vocab = shape.at("vocab");
  m.config.context = shape.at("context");
  return m;
}

MemoryTable MemoryFrom(const json& rows) {
  MemoryTable memory;
  for (const json& r : rows) {
    // Of records from before it was a column, what links take is workspace, or is not told.
    memory.rows.push_back({.device = DeviceFromLabel(r.at("device")),
                           .weights = Bytes{r.at("weights")},
                           .slots = Bytes{r.at("slots")},
                           .kv = Bytes{r.at("kv")},
                           .activations = Bytes{r.at("activations")},
                           .workspace = Bytes{r.at("workspace")},
                           .links = Bytes{r.value("links", uint64_t{0})},
                           .capacity = Bytes{r.at("capacity")}});
  }
  return memory;
}

void SetOptional(json& j, const char* key, const std::optional<double>& value) {
  if (value) j[key] = *value;
}

std::optional<double> GetOptional(const json& j, const char* key) {
  return j.contains(key) ? std::optional<double>(j.at(key).get<double>()) : std::nullopt;
}

json PredictedJson(const PredictedResult& p) {
  json j = json::object();
  SetOptional(j, "prefill_tokens_per_s", p.prefill_tokens_per_s);
  SetOptional(j, "decode_tokens_per_s", p.decode_tokens_per_s);
  SetOptional(j, "prefill_link_share", p.prefill_link_share);
  SetOptional(j, "decode_link_share", p.decode_link_share);
  return j;
}

PredictedResult PredictedFrom(const json& j) {
  return {GetOptional(j, "prefill_tokens_per_s"), GetOptional(j, "decode_tokens_per_s"),
          GetOptional(j, "prefill_link_share"), GetOptional(j, "decode_link_share")};
}

Fidelity FidelityFrom(const std::string& name) {
  for (Fidelity f : {Fidelity::kMeasured, Fidelity::kEmulated, Fidelity::kPredicted}) {
    if (name == ToString(f)) return f;
  }
  Fail(ErrorCode::kInvalidArgument, "record: fidelity: unknown value '" + name + "'");
}

json SharesJson(const std::vector<GpuShare>& shares) {
  json list = json::array();
  for (const GpuShare& share : shares) {
    list.push_back({{"sms", share.sms},
                    {"gpu_sms", share.gpu_sms},
                    {"alone_bytes_per_s", share.alone_bytes_per_s},
                    {"beside_bytes_per_s", share.beside_bytes_per_s},
                    {"balanced", share.balanced},
                    {"how", share.how}});
  }
  return list;
}

std::vector<GpuShare> SharesFrom(const json& list) {
  std::vector<GpuShare> shares;
  for (const json& j : list) {
    shares.push_back(GpuShare{.sms = j.at("sms"),
                              .gpu_sms = j.at("gpu_sms"),
                              .alone_bytes_per_s = j.at("alone_bytes_per_s"),
                              .beside_bytes_per_s = j.at("beside_bytes_per_s"),
                              .balanced = j.at("balanced"),
                              .how = j.at("how")});
  }
  return shares;
}

json MemoryCheckJson(const std::vector<MemoryCheck>& checks) {
  json list = json::array();
  for (const MemoryCheck& check : checks) {
    list.push_back({{"gpu", check.gpu},
                    {"ledger_bytes", check.ledger.value},
                    {"driver_bytes", check.driver.value},
                    {"room_bytes", check.room.value},
                    {"agrees", check.agrees()}});
  }
  return list;
}

std::vector<MemoryCheck> MemoryCheckFrom(const json& list) {
  std::vector<MemoryCheck> checks;
  for (const json& j : list) {
    checks.push_back(MemoryCheck{.gpu = j.at("gpu"),
                                 .ledger = Bytes{j.at("ledger_bytes")},
                                 .driver = Bytes{j.at("driver_bytes")},
                                 .room = Bytes{j.at("room_bytes")}});
  }
  return checks;
}

// Records from before a switch was there are of its default.
GpuSwitches SwitchesFrom(const json& j) {
  GpuSwitches gpu;
  for (const GpuSwitch& s : AllGpuSwitches()) {
    if (!s.told || !j.contains(s.key)) continue;
    const std::string word = j.at(s.key);
    if (s.Set(gpu, word)) continue;
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("record: {}: got '{}', want {}", s.key, word, s.Wanted()));
  }
  return gpu;
}

Record Parse(const json& j) {
  Record r;
  r.scenario = j.at("scenario");
  r.question = j.value("question", "");
  for (const json& axis : j.at("cell")) r.cell.emplace_back(axis.at(0), axis.at(1));
  r.repetition = j.at("repetition");
  r.fidelity = FidelityFrom(j.at("fidelity"));
  r.clock = j.at("clock") == "virtual" ? ClockKind::kVirtual : ClockKind::kWall;
  r.op_times = j.at("op_times") == "modelled" ? OpTimes::kModelled : OpTimes::kMeasured;
  r.model = ModelFrom(j.at("model"));
  r.rig = j.at("rig").at("name");
  r.rig_fingerprint = j.at("rig").at("fingerprint");
  r.n_devices = j.at("rig").at("devices");
  r.shares = SharesFrom(j.at("rig").value("gpu_shares", json::array()));
  r.link = j.at("link");
  const json& plugin = j.at("plugin");
  r.plugin_requested = plugin.at("requested");
  r.plugin = plugin.at("name");
  r.plugin_version = plugin.at("version");
  r.plugin_sha256 = plugin.at("sha256");
  for (const auto& [key, value] : plugin.at("knobs").items()) r.knobs.push_back({key, value});
  if (plugin.contains("auto_use")) {
    const json& use = plugin.at("auto_use");
    r.auto_use = AutoUse{.prompt_tokens = use.at("prompt_tokens"),
                         .output_tokens = use.at("output_tokens"),
                         .sequences = use.at("sequences")};
  }
  r.plan_hash = j.at("plan_hash");
  r.path_requested = j.at("path").at("requested");
  r.paths_taken = j.at("path").at("taken").get<std::vector<std::string>>();
  r.wire = j.at("wire");
  r.activations = j.at("activations");
  r.gpu = SwitchesFrom(j);
  r.ops = j.at("ops");
  r.launch = j.value("launch", "eager");
  r.collectives = j.value("collectives", "apart");
  r.nccl_windows = j.value("nccl_windows", "");
  r.seed = j.at("seed");
  r.predicted = PredictedFrom(j.at("predicted"));
  if (j.contains("prefill")) r.prefill = PhaseFrom(j.at("prefill"));
  if (j.contains("decode")) r.decode = PhaseFrom(j.at("decode"));
  if (j.contains("serve")) r.serve = ServeFrom(j.at("serve"));
  r.memory = MemoryFrom(j.at("memory"));
  r.memory_check = MemoryCheckFrom(j.value("memory_check", json::array()));
  r.refused = j.value("refused", "");
  r.machine = j.at("machine");
  r.tandem_version = j.at("tandem").at("version");
  r.when = j.at("when");
  return r;
}

}  // namespace

std::string RefusalLabel(const std::string& refused) {
  if (refused.starts_with("engine: ")) return "refused";
  if (refused.starts_with("pricer: ")) return "not priced";
  const std::string said = "plan refused [";
  const size_t at = refused.find(said);
  const size_t end = at == std::string::npos ? at : refused.find(']', at);
  if (end == std::string::npos) return "does not fit";
  const std::string rule = refused.substr(at + said.size(), end - at - said.size());
  return rule == "memory" ? "does not fit" : "refused [" + rule + "]";
}

std::string Record::Key() const {
  std::string key = scenario;
  for (const auto& [axis, value] : cell) key += "\x1f" + axis + "=" + value;
  return key + "\x1f#" + std::to_string(repetition);
}

json ToJson(const Record& r) {
  json cell = json::array();
  for (const auto& [axis, value] : r.cell) cell.push_back({axis, value});
  json knobs = json::object();
  for (const Knob& k : r.knobs) knobs[k.key] = k.value;
  json j{{"schema_version", kRecordSchemaVersion},
         {"scenario", r.scenario},
         {"question", r.question},
         {"cell", cell},
         {"repetition", r.repetition},
         {"fidelity", ToString(r.fidelity)},
         {"clock", r.clock == ClockKind::kVirtual ? "virtual" : "wall"},
         {"op_times", r.op_times == OpTimes::kModelled ? "modelled" : "measured"},
         {"model", ModelJson(r.model)},
         {"rig", {{"name", r.rig}, {"fingerprint", r.rig_fingerprint}, {"devices", r.n_devices}}},
         {"link", r.link},
         {"plugin",
          {{"requested", r.plugin_requested},
           {"name", r.plugin},
           {"version", r.plugin_version},
           {"sha256", r.plugin_sha256},
           {"knobs", knobs}}},
         {"plan_hash", r.plan_hash},
         {"path", {{"requested", r.path_requested}, {"taken", r.paths_taken}}},
         {"wire", r.wire},
         {"activations", r.activations},
         {"ops", r.ops},
         {"launch", r.launch},
         {"collectives", r.collectives},
         {"seed", r.seed},
         {"predicted", PredictedJson(r.predicted)},
         {"memory", MemoryJson(r.memory)},
         {"machine", r.machine},
         {"tandem", {{"version", r.tandem_version}}},
         {"when", r.when}};
  for (const auto& [key, word] : ToldSwitches(r.gpu)) j[key] = word;
  if (!r.nccl_windows.empty()) j["nccl_windows"] = r.nccl_windows;
  if (!r.memory_check.empty()) j["memory_check"] = MemoryCheckJson(r.memory_check);
  if (!r.shares.empty()) j["rig"]["gpu_shares"] = SharesJson(r.shares);
  if (r.auto_use) {
    j["plugin"]["auto_use"] = {{"prompt_tokens", r.auto_use->prompt_tokens},
                               {"output_tokens", r.auto_use->output_tokens},
                               {"sequences", r.auto_use->sequences}};
  }
  if (r.prefill) j["prefill"] = PhaseJson(*r.prefill);
  if (r.decode) j["decode"] = PhaseJson(*r.decode);
  if (r.serve) j["serve"] = ServeJson(*r.serve);
  if (!r.refused.empty()) j["refused"] = r.refused;
  return j;
}

Record RecordFromJson(const json& j) {
  int version = j.is_object() ? j.value("schema_version", 0) : 0;
  if (version != kRecordSchemaVersion) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("record: schema_version {} (this tandem reads {}); a newer tandem wrote it, "
                     "or it is no record",
                     version, kRecordSchemaVersion));
  }
  try {
    return Parse(j);
  } catch (const json::exception& error) {
    Fail(ErrorCode::kInvalidArgument, std::string("record: ") + error.what());
  } catch (const std::logic_error& error) {  // a device label that is no number
    Fail(ErrorCode::kInvalidArgument, std::string("record: ") + error.what());
  }
}

}  // namespace tandem
