// The request of the planning helper: a whole problem as JSON. Numbers are written so that they
// read back to the same value.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/plugin/protocol.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

constexpr int kProtocol = 1;

// How pairs rotate stays behind: no plan depends on it.
Json ConfigJson(const ModelConfig& c) {
  return {{"architecture", c.architecture},
          {"name", c.name},
          {"n_layers", c.n_layers},
          {"hidden", c.hidden},
          {"n_heads", c.n_heads},
          {"n_kv_heads", c.n_kv_heads},
          {"head_dim", c.head_dim},
          {"ffn", c.ffn},
          {"vocab", c.vocab},
          {"context", c.context},
          {"rope_dim", c.rope_dim},
          {"rope_theta", c.rope_theta},
          {"rope_scale", c.rope_scale},
          {"norm_eps", c.norm_eps},
          {"tied", c.tied_embedding},
          {"rope_interleaved", c.rope_interleaved},
          {"sliding_window", c.sliding_window},
          {"attention_bias", c.attention_bias},
          {"qk_norm", c.qk_norm}};
}

ModelConfig ConfigFrom(const Json& j) {
  ModelConfig c;
  c.architecture = j.at("architecture");
  c.name = j.at("name");
  c.n_layers = j.at("n_layers");
  c.hidden = j.at("hidden");
  c.n_heads = j.at("n_heads");
  c.n_kv_heads = j.at("n_kv_heads");
  c.head_dim = j.at("head_dim");
  c.ffn = j.at("ffn");
  c.vocab = j.at("vocab");
  c.context = j.at("context");
  c.rope_dim = j.at("rope_dim");
  c.rope_theta = j.at("rope_theta");
  c.rope_scale = j.at("rope_scale");
  c.norm_eps = j.at("norm_eps");
  c.tied_embedding = j.at("tied");
  c.rope_interleaved = j.at("rope_interleaved");
  c.sliding_window = j.at("sliding_window");
  c.attention_bias = j.at("attention_bias");
  c.qk_norm = j.at("qk_norm");
  return c;
}

Json GraphJson(const BlockGraph& graph) {
  Json blocks = Json::array();
  for (const Block& b : graph.blocks) {
    blocks.push_back({static_cast<int>(b.kind), b.layer.value, b.units, b.elems_per_unit, b.elems,
                      b.sums, b.norm_bytes.value, b.bytes_per_elem.value, b.params_per_elem,
                      b.kv_bytes_per_elem_token.value, b.head_norm_bytes.value, b.columns});
  }
  return {{"config", ConfigJson(graph.config)}, {"blocks", blocks}, {"tied", graph.tied}};
}

BlockGraph GraphFrom(const Json& j) {
  BlockGraph graph;
  graph.config = ConfigFrom(j.at("config"));
  graph.tied = j.at("tied");
  for (const Json& from : j.at("blocks")) {
    Block b;
    b.kind = static_cast<BlockKind>(from.at(0).get<int>());
    b.layer.value = from.at(1);
    b.units = from.at(2);
    b.elems_per_unit = from.at(3);
    b.elems = from.at(4);
    b.sums = from.at(5);
    b.norm_bytes.value = from.at(6);
    b.bytes_per_elem.value = from.at(7);
    b.params_per_elem = from.at(8);
    b.kv_bytes_per_elem_token.value = from.at(9);
    b.head_norm_bytes.value = from.at(10);
    b.columns = from.at(11);
    graph.blocks.push_back(b);
  }
  return graph;
}

Json CurveJson(const TimeCurve& curve) {
  Json points = Json::array();
  for (const TimePoint& p : curve.points) points.push_back({p.bytes.value, p.time.value});
  return points;
}

TimeCurve CurveFrom(const Json& j) {
  TimeCurve curve;
  for (const Json& p : j) {
    curve.points.push_back({Bytes{p.at(0).get<uint64_t>()}, Nanos{p.at(1).get<int64_t>()}});
  }
  return curve;
}

Json LinkJson(const LinkProfile& link) {
  return {{"name", link.name},
          {"kind", static_cast<int>(link.kind)},
          {"send", CurveJson(link.send)},
          {"all_reduce", CurveJson(link.all_reduce)},
          {"send_replayed", CurveJson(link.send_replayed)},
          {"all_reduce_replayed", CurveJson(link.all_reduce_replayed)},
          {"full_duplex", link.full_duplex}};
}

LinkProfile LinkFrom(const Json& j) {
  LinkProfile link;
  link.name = j.at("name");
  link.kind = static_cast<LinkKind>(j.at("kind").get<int>());
  link.send = CurveFrom(j.at("send"));
  link.all_reduce = CurveFrom(j.at("all_reduce"));
  link.send_replayed = CurveFrom(j.at("send_replayed"));
  link.all_reduce_replayed = CurveFrom(j.at("all_reduce_replayed"));
  link.full_duplex = j.at("full_duplex");
  return link;
}

Json RigJson(const Rig& rig) {
  Json devices = Json::array();
  for (const DeviceSpec& d : rig.devices) {
    devices.push_back({d.name, d.memory.value, d.memory_bytes_per_s, d.flops, d.memory_efficiency,
                       d.compute_efficiency, d.launch_gap.value, d.on_host,
                       d.replay_gap ? Json(d.replay_gap->value) : Json()});
  }
  return {{"name", rig.name},
          {"devices", devices},
          {"link", LinkJson(rig.link)},
          {"host_link", LinkJson(rig.host_link)},
          {"host_memory", rig.host_memory.value},
          {"is_this_machine", rig.is_this_machine},
          {"gpus", rig.gpus}};
}

Rig RigFrom(const Json& j) {
  Rig rig;
  rig.name = j.at("name");
  for (const Json& from : j.at("devices")) {
    DeviceSpec d;
    d.name = from.at(0);
    d.memory.value = from.at(1);
    d.memory_bytes_per_s = from.at(2);
    d.flops = from.at(3);
    d.memory_efficiency = from.at(4);
    d.compute_efficiency = from.at(5);
    d.launch_gap.value = from.at(6);
    d.on_host = from.at(7);
    if (!from.at(8).is_null()) d.replay_gap = Nanos{from.at(8).get<int64_t>()};
    rig.devices.push_back(d);
  }
  rig.link = LinkFrom(j.at("link"));
  rig.host_link = LinkFrom(j.at("host_link"));
  rig.host_memory.value = j.at("host_memory");
  rig.is_this_machine = j.at("is_this_machine");
  rig.gpus = j.at("gpus").get<std::vector<int>>();
  return rig;
}

}  // namespace

std::string FormatRequest(const PlanRequest& request) {
  Json j{{"protocol", kProtocol}, {"plugin", request.plugin_path}, {"plan", request.plan}};
  if (request.plan) {
    Json knobs = Json::array();
    for (const Knob& knob : request.knobs) knobs.push_back({knob.key, knob.value});
    j["knobs"] = knobs;
    j["graph"] = GraphJson(request.graph);
    j["rig"] = RigJson(request.rig);
    j["limits"] = {request.limits.max_step_tokens, request.limits.max_sequences,
                   request.limits.context};
    j["wire"] = static_cast<int>(request.wire);
    j["path"] = static_cast<int>(request.path);
    j["tensor_split"] = request.tensor_split;
  }
  return j.dump(-1, ' ', false, Json::error_handler_t::replace);
}

PlanRequest ParseRequest(std::string_view text) {
  try {
    const Json j = Json::parse(text);
    if (j.at("protocol") != kProtocol) {
      Fail(ErrorCode::kPlugin, fmt::format("planner: request of protocol {} (want {}); the helper "
                                           "and the engine are of different builds",
                                           j.at("protocol").dump(), kProtocol));
    }
    PlanRequest request;
    request.plugin_path = j.at("plugin");
    request.plan = j.at("plan");
    if (!request.plan) return request;
    for (const Json& knob : j.at("knobs")) request.knobs.push_back({knob.at(0), knob.at(1)});
    request.graph = GraphFrom(j.at("graph"));
    request.rig = RigFrom(j.at("rig"));
    request.limits.max_step_tokens = j.at("limits").at(0);
    request.limits.max_sequences = j.at("limits").at(1);
    request.limits.context = j.at("limits").at(2);
    request.wire = static_cast<WireType>(j.at("wire").get<int>());
    request.path = static_cast<PathKind>(j.at("path").get<int>());
    request.tensor_split = j.at("tensor_split").get<std::vector<double>>();
    return request;
  } catch (const Json::exception& error) {
    Fail(ErrorCode::kPlugin, fmt::format("planner: unreadable request: {}", error.what()));
  }
}

}  // namespace tandem
