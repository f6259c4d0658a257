#include "tools/tandem/rig_json.h"

#include <fmt/core.h>

namespace tandem {
namespace {

nlohmann::json CurveJson(const TimeCurve& curve) {
  nlohmann::json points = nlohmann::json::array();
  for (const TimePoint& p : curve.points) points.push_back({p.bytes.value, p.time.value});
  return points;
}

nlohmann::json LinkJson(const LinkProfile& link) {
  return {{"name", link.name},
          {"kind", ToString(link.kind)},
          {"full_duplex", link.full_duplex},
          {"send_bytes_ns", CurveJson(link.send)},
          {"all_reduce_bytes_ns", CurveJson(link.all_reduce)},
          {"send_replayed_bytes_ns", CurveJson(link.send_replayed)},
          {"all_reduce_replayed_bytes_ns", CurveJson(link.all_reduce_replayed)},
          {"source", link.source}};
}

nlohmann::json SharesJson(const Rig& rig) {
  nlohmann::json shares = nlohmann::json::array();
  for (const GpuShare& share : rig.shares) {
    shares.push_back({{"sms", share.sms},
                      {"gpu_sms", share.gpu_sms},
                      {"alone_bytes_per_s", share.alone_bytes_per_s},
                      {"beside_bytes_per_s", share.beside_bytes_per_s},
                      {"balanced", share.balanced},
                      {"how", share.how}});
  }
  return shares;
}

nlohmann::json SpreadJson(const Spread& spread) {
  return {
      {"median", spread.median}, {"low", spread.low}, {"high", spread.high}, {"runs", spread.runs}};
}

// A row with the value, or the reason why there is none.
template <typename Value>
void SetOrSay(nlohmann::json& row, const char* key, const Value& value, const std::string& absent) {
  if (absent.empty()) {
    row[key] = value;
  } else {
    row["absent"] = absent;
  }
}

nlohmann::json MeasurementsJson(const RigMeasurements& m) {
  nlohmann::json facts = nlohmann::json::array(), figures = facts, paths = facts, counters = facts;
  for (const MachineFact& fact : m.facts) {
    facts.push_back({{"of", fact.of}, {"what", fact.what}});
    SetOrSay(facts.back(), "value", fact.value, fact.absent);
  }
  for (const MeasuredFigure& figure : m.figures) {
    figures.push_back({{"device", figure.device}, {"what", figure.what}, {"unit", figure.unit}});
    SetOrSay(figures.back(), "value", SpreadJson(figure.value), figure.absent);
  }
  for (const MeasuredPath& path : m.paths) {
    nlohmann::json points = nlohmann::json::array();
    for (const MeasuredPoint& point : path.points) {
      points.push_back({{"bytes", point.bytes.value}, {"us", SpreadJson(point.micros)}});
    }
    paths.push_back({{"path", ToString(path.path)}, {"what", path.what}, {"points", points}});
    if (!path.refused.empty()) paths.back()["refused"] = path.refused;
  }
  for (const CounterCheck& check : m.counters) {
    counters.push_back({{"path", ToString(check.path)},
                        {"what", check.what},
                        {"counter", check.counter},
                        {"booked", check.booked.value},
                        {"counted", check.counted.value},
                        {"tolerance", check.tolerance},
                        {"verdict", ToString(check.verdict)},
                        {"why", check.why}});
  }
  return {{"date", m.date},     {"tandem", m.version}, {"devices", m.devices}, {"facts", facts},
          {"figures", figures}, {"paths", paths},      {"counters", counters}};
}

}  // namespace

nlohmann::json RigJson(const Rig& rig) {
  nlohmann::json devices = nlohmann::json::array();
  for (const DeviceSpec& d : rig.devices) {
    devices.push_back(
        {{"name", d.name},
         {"memory", d.memory.value},
         {"memory_bytes_per_s", d.memory_bytes_per_s},
         {"flops", d.flops},
         {"memory_efficiency", d.memory_efficiency},
         {"compute_efficiency", d.compute_efficiency},
         {"launch_gap_ns", d.launch_gap.value},
         {"replay_gap_ns", d.replay_gap ? nlohmann::json(d.replay_gap->value) : nlohmann::json()},
         {"source", d.source}});
  }
  nlohmann::json json{{"name", rig.name},
                      {"description", rig.description},
                      {"devices", devices},
                      {"link", LinkJson(rig.link)},
                      {"host_link", LinkJson(rig.host_link)},
                      {"host_memory", rig.host_memory.value},
                      {"gpu_shares", SharesJson(rig)},
                      {"fingerprint", rig.Fingerprint()}};
  if (rig.measured != nullptr) json["measured"] = MeasurementsJson(*rig.measured);
  return json;
}

nlohmann::json InventoryJson(const GpuInventory& inventory) {
  nlohmann::json gpus = nlohmann::json::array();
  for (const GpuInfo& gpu : inventory.gpus) {
    gpus.push_back(
        {{"index", gpu.index},
         {"name", gpu.name},
         {"memory", gpu.total_memory.value},
         {"sm_count", gpu.sm_count},
         {"compute_capability", fmt::format("{}.{}", gpu.compute_major, gpu.compute_minor)},
         {"pci_bus_id", gpu.pci_bus_id}});
  }
  nlohmann::json paths = nlohmann::json::array();
  for (const GpuPeerPath& path : inventory.peer_paths) {
    paths.push_back({{"from", path.from},
                     {"to", path.to},
                     {"access", path.access},
                     {"native_atomics", path.native_atomics},
                     {"nvlink", path.nvlink ? nlohmann::json(*path.nvlink) : nlohmann::json()},
                     {"performance_rank", path.performance_rank}});
  }
  return {{"built_with_cuda", inventory.built_with_cuda},
          {"driver", inventory.driver_message},
          {"libraries", inventory.libraries},
          {"gpus", gpus},
          {"peer_paths", paths}};
}

}  // namespace tandem
