#include "tools/tandem/plan_view.h"

#include <fmt/core.h>

#include <algorithm>

#include "tools/tandem/console.h"

namespace tandem {
namespace {

constexpr uint32_t kPrefillTokens = 512;

}  // namespace

std::vector<TrafficRow> StandardTraffic(const PlannedRun& planned, const BlockGraph& graph,
                                        const Rig& rig, const PlanLimits& limits) {
  std::vector<TrafficRow> rows;
  const Plan& plan = planned.plan;
  for (ProgramKind kind : {ProgramKind::kPrefill, ProgramKind::kDecode}) {
    for (size_t p = 0; p < plan.programs.size(); ++p) {
      const Program& program = plan.programs[p];
      if (program.kind != kind || program.lane != 0) continue;
      StepShape shape = kind == ProgramKind::kPrefill
                            ? PrefillShape(program, kPrefillTokens)
                            : DecodeShape(program, 1, limits.context / 2 + 1);
      std::vector<TrafficRow> part =
          TrafficOf(graph, plan, program, planned.verified.programs[p], shape, rig);
      rows.insert(rows.end(), part.begin(), part.end());
    }
  }
  return rows;
}

nlohmann::json MemoryJson(const MemoryTable& memory) {
  nlohmann::json rows = nlohmann::json::array();
  for (const MemoryRow& row : memory.rows) {
    rows.push_back({{"device", DeviceName(row.device)},
                    {"weights", row.weights.value},
                    {"slots", row.slots.value},
                    {"kv", row.kv.value},
                    {"activations", row.activations.value},
                    {"workspace", row.workspace.value},
                    {"capacity", row.capacity.value}});
  }
  return rows;
}

nlohmann::json TrafficJson(const std::vector<TrafficRow>& traffic) {
  nlohmann::json rows = nlohmann::json::array();
  for (const TrafficRow& row : traffic) {
    rows.push_back({{"phase", ToString(row.phase)},
                    {"src", DeviceName(row.src)},
                    {"dst", DeviceName(row.dst)},
                    {"path", ToString(row.path)},
                    {"bytes", row.bytes.value},
                    {"rows", row.rows},
                    {"bytes_per_token",
                     row.rows == 0 ? 0.0 : static_cast<double>(row.bytes.value) / row.rows}});
  }
  return rows;
}

std::string MemoryText(const MemoryTable& memory) {
  std::vector<std::vector<std::string>> rows{
      {"memory", "weights", "slots", "kv", "activations", "workspace", "total", "capacity", ""}};
  for (const MemoryRow& row : memory.rows) {
    rows.push_back({DeviceName(row.device), HumanBytes(row.weights), HumanBytes(row.slots),
                    HumanBytes(row.kv), HumanBytes(row.activations), HumanBytes(row.workspace),
                    HumanBytes(row.total()),
                    row.capacity.value == 0 ? "-" : HumanBytes(row.capacity),
                    row.fits() ? "" : "DOES NOT FIT"});
  }
  return FormatTable(rows);
}

std::string TrafficText(const std::vector<TrafficRow>& traffic) {
  std::vector<std::vector<std::string>> rows{
      {"phase", "hop", "path", "bytes", "rows", "bytes/token"}};
  for (const TrafficRow& row : traffic) {
    rows.push_back(
        {ToString(row.phase), DeviceName(row.src) + " -> " + DeviceName(row.dst),
         ToString(row.path), fmt::format("{}", row.bytes.value), fmt::format("{}", row.rows),
         fmt::format("{:.0f}",
                     row.rows == 0 ? 0.0 : static_cast<double>(row.bytes.value) / row.rows)});
  }
  return rows.size() == 1 ? std::string("no traffic between devices\n") : FormatTable(rows);
}

}  // namespace tandem
