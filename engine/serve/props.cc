// GET /props, /v1/models and /health: what is served, on what, and by which plan.
#include <fmt/format.h>

#include "engine/plan/memory_json.h"
#include "engine/serve/api_error.h"
#include "engine/serve/handlers.h"
#include "engine/serve/step_totals.h"

namespace tandem {
namespace {

using nlohmann::json;

json ModelJson(const ServeContext& context) {
  const ModelConfig& c = context.model.config();
  return {{"id", context.model_id},
          {"name", c.name},
          {"source", context.model.source()},
          {"architecture", c.architecture},
          {"n_layers", c.n_layers},
          {"hidden", c.hidden},
          {"n_heads", c.n_heads},
          {"n_kv_heads", c.n_kv_heads},
          {"ffn", c.ffn},
          {"vocab", c.vocab},
          {"context_trained", c.context},
          {"weight_bytes", context.model.weight_bytes().value},
          {"has_tokenizer", context.tokenizer != nullptr},
          {"chat_template", context.model.chat_template()},
          {"can_chat", context.chat_template.has_value()}};
}

json LinkJson(const LinkProfile& link) {
  return {{"name", link.name},
          {"kind", ToString(link.kind)},
          {"full_duplex", link.full_duplex},
          {"source", link.source}};
}

json RigJson(const Rig& rig) {
  json devices = json::array();
  for (uint32_t i = 0; i < rig.size(); ++i) {
    const DeviceSpec& d = rig.devices[i];
    devices.push_back({{"device", DeviceName(DeviceId{static_cast<int32_t>(i)})},
                       {"name", d.name},
                       {"memory_bytes", d.memory.value},
                       {"memory_bytes_per_s", d.memory_bytes_per_s},
                       {"flops", d.flops},
                       {"source", d.source}});
  }
  return {{"name", rig.name},
          {"description", rig.description},
          {"fingerprint", rig.Fingerprint()},
          {"is_this_machine", rig.is_this_machine},
          {"devices", std::move(devices)},
          {"link", LinkJson(rig.link)},
          {"host_link", LinkJson(rig.host_link)}};
}

json PluginJson(const PlannedRun& planned) {
  json knobs = json::object();
  for (const Knob& knob : planned.plan.knobs) knobs[knob.key] = knob.value;
  return {{"name", planned.plugin.name},     {"version", planned.plugin.version},
          {"requested", planned.requested},  {"summary", planned.plugin.summary},
          {"sha256", planned.plugin.sha256}, {"knobs", std::move(knobs)}};
}

}  // namespace

HttpResponse HandleProps(ServeContext& context, const HttpRequest&) {
  const EngineInfo& info = context.engine.info();
  const EngineOptions& options = context.engine.options();
  json props{{"model", ModelJson(context)},
             {"rig", RigJson(options.rig)},
             {"plugin", PluginJson(info.planned)},
             {"plan_hash", info.planned.plan_hash},
             {"fidelity", ToString(info.fidelity)},
             {"wire", ToString(info.planned.plan.wire)},
             {"path_requested", ToString(options.path)},
             {"paths", info.transports},
             {"devices", info.planned.plan.n_devices},
             {"lanes", info.planned.plan.n_lanes},
             {"memory", MemoryJson(info.planned.verified.memory)},
             {"packed_bytes", info.packed_bytes.value},
             {"load_ns", info.load_time.value},
             {"context", options.limits.context},
             {"slots", options.limits.max_sequences},
             {"slot_context", context.slot_context},
             {"max_step_tokens", options.limits.max_step_tokens},
             {"max_queue", options.max_queue},
             {"clock", options.clock == ClockKind::kVirtual ? "virtual" : "wall"},
             {"ops", info.ops_name},
             {"activations", ToString(info.activations)},
             {"threads", info.threads},
             {"op_time_factor", info.op_time_factor},
             {"draining", context.lifecycle.draining()}};
  for (const auto& [key, word] : ToldSwitches(options.gpu)) props[key] = word;
  return {.body = Dump(props)};
}

HttpResponse HandleModels(ServeContext& context, const HttpRequest& request) {
  json model{{"id", context.model_id},
             {"object", "model"},
             {"created", context.created},
             {"owned_by", "tandem"},
             {"max_model_len", context.slot_context},
             {"meta",
              {{"n_vocab", context.model.config().vocab},
               {"n_ctx_train", context.model.config().context},
               {"n_embd", context.model.config().hidden},
               {"size", context.model.weight_bytes().value}}}};
  size_t slash = request.path.find("/models/");
  if (slash == std::string::npos) {
    return {.body = Dump({{"object", "list"}, {"data", json::array({std::move(model)})}})};
  }
  std::string name = request.path.substr(slash + 8);
  if (name != context.model_id) {
    throw ApiError(404, "not_found_error",
                   fmt::format("no model '{}' here (there is '{}')", name, context.model_id),
                   "model", "model_not_found");
  }
  return {.body = Dump(model)};
}

HttpResponse HandleHealth(ServeContext& context, const HttpRequest&) {
  if (context.lifecycle.draining()) {
    throw ApiError(503, "unavailable_error", "the server is shutting down");
  }
  return {.body = R"({"status":"ok"})"};
}

}  // namespace tandem
