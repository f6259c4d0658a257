#include "tools/tandem/plan_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/lab/record.h"
#include "engine/plan/memory_json.h"
#include "tools/tandem/console.h"

namespace tandem {
namespace {

constexpr uint32_t kPrefillTokens = 512;

double TokensPerSecond(const AutoUse& use, const PlannedRun::Candidate& candidate) {
  const double tokens = double{1} * use.sequences * use.output_tokens;
  return candidate.seconds > 0 ? tokens / candidate.seconds : 0;
}

std::string KnobsText(const std::vector<Knob>& knobs) {
  std::string text;
  for (const Knob& knob : knobs) text += (text.empty() ? "" : " ") + knob.key + "=" + knob.value;
  return text;
}

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
  std::vector<std::vector<std::string>> rows{{"memory", "weights", "slots", "kv", "activations",
                                              "workspace", "links", "total", "capacity", ""}};
  for (const MemoryRow& row : memory.rows) {
    rows.push_back({DeviceName(row.device), HumanBytes(row.weights), HumanBytes(row.slots),
                    HumanBytes(row.kv), HumanBytes(row.activations), HumanBytes(row.workspace),
                    HumanBytes(row.links), HumanBytes(row.total()),
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

nlohmann::json AutoUseJson(const AutoUse& use) {
  return {{"prompt_tokens", use.prompt_tokens},
          {"output_tokens", use.output_tokens},
          {"sequences", use.sequences}};
}

nlohmann::json CandidatesJson(const PlannedRun& run) {
  nlohmann::json candidates = nlohmann::json::array();
  for (const PlannedRun::Candidate& c : run.candidates) {
    nlohmann::json knobs = nlohmann::json::object();
    for (const Knob& knob : c.knobs) knobs[knob.key] = knob.value;
    nlohmann::json entry{{"plugin", c.plugin}, {"knobs", knobs}, {"chosen", c.chosen}};
    if (c.refused.empty()) {
      entry["decode_step_ns"] = c.decode.value;
      entry["prefill_step_ns"] = c.prefill.value;
      entry["seconds"] = c.seconds;
    } else {
      entry["refused"] = c.refused;
      if (!c.memory.rows.empty()) entry["memory"] = MemoryJson(c.memory);
    }
    candidates.push_back(entry);
  }
  return candidates;
}

std::string CandidatesText(const PlannedRun& run) {
  const AutoUse& use = *run.use;
  std::vector<std::vector<std::string>> rows{
      {"plugin", "knobs", "prefill step", "decode step", "all done", "tokens/s", ""}};
  std::set<std::string> reasons;  // of what the table only labels
  for (const PlannedRun::Candidate& c : run.candidates) {
    if (!c.refused.empty()) {
      rows.push_back({c.plugin, KnobsText(c.knobs), "-", "-", "-", "-",
                      c.reason.empty() ? RefusalLabel(c.refused) : c.reason});
      if (c.reason.empty()) reasons.insert(c.refused.substr(0, c.refused.find('\n')));
      continue;
    }
    rows.push_back({c.plugin, KnobsText(c.knobs), fmt::format("{:.3f} ms", c.prefill.Millis()),
                    fmt::format("{:.3f} ms", c.decode.Millis()), fmt::format("{:.3f} s", c.seconds),
                    fmt::format("{:.1f}", TokensPerSecond(use, c)), c.chosen ? "chosen" : ""});
  }
  return fmt::format(
             "PREDICTED by auto, for {} sequence{} of {} prompt and {} output tokens at once\n"
             "(--knob sequences=N, prompt_tokens=N, output_tokens=N look for another use):\n",
             use.sequences, use.sequences == 1 ? "" : "s", use.prompt_tokens, use.output_tokens) +
         FormatTable(rows) +
         fmt::format("{}{}", fmt::join(reasons, "\n"), reasons.empty() ? "" : "\n");
}

}  // namespace tandem
