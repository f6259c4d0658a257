// The page around the charts and tables.
#include "engine/lab/report.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "engine/lab/report_parts.h"
#include "engine/lab/report_svg.h"

namespace tandem {
namespace {

constexpr const char* kStyle = R"(
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:90rem;padding:1rem;color:#111;background:#fff}
h1{font-size:1.6rem;line-height:1.2}h2{margin-top:2.5rem;border-top:2px solid #111;padding-top:.6rem}
.banner{padding:.8rem 1rem;border:3px solid #d55e00;background:#fff3e8;font-weight:600;margin:1rem 0}
.banner.measured{border-color:#009e73;background:#e9f7f2}
.badge{font-size:.75rem;font-weight:700;text-transform:uppercase;padding:.1rem .4rem;border-radius:.2rem;color:#fff;background:#d55e00}
.badge.measured{background:#009e73}.badge.predicted{background:#555}
figure{margin:1.5rem 0;break-inside:avoid}figcaption{font-weight:600;margin-bottom:.3rem}
body>p,ul,figure{max-width:60rem}
svg{width:100%;height:auto;display:block;background:#fff}
.grid{stroke:#ddd;stroke-width:1}.tick{font-size:12px;fill:#333}.axis{font-size:13px;fill:#111}
.stamp{font-size:13px;font-weight:700;fill:#d55e00}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.9rem}
.legend i{display:inline-block;width:.9em;height:.9em;margin-right:.35em;vertical-align:-.1em}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;white-space:nowrap}
th,td{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right}th:first-child,td:first-child{text-align:left}
th{border-bottom:2px solid #111}summary{cursor:pointer;font-weight:600;margin:1rem 0 .4rem}
.crossings{font-size:.95rem}.small{font-size:.85rem;color:#444}
@media (max-width:40rem){figure{overflow-x:auto}figure svg{min-width:32rem}h1{overflow-wrap:anywhere}}
@media print{tr{break-inside:avoid}h2,h3{break-after:avoid}body{max-width:none;font-size:11pt}details{display:block}.scroll{overflow:visible}table{font-size:7pt}}
)";

std::string Banner(const std::vector<Record>& records) {
  std::set<Fidelity> kinds;
  for (const Record& r : records) kinds.insert(r.fidelity);
  std::string html;
  if (kinds.count(Fidelity::kEmulated) != 0) {
    html +=
        "<p class='banner'>EMULATED figures: the arithmetic is real and ran on this machine's CPU; "
        "op times are scaled to the "
        "named rig by rooflines (or modelled, where it says so), and the link is laid on a virtual "
        "timeline from a published or "
        "probed profile. No GPU and no such link was used.</p>";
  }
  if (kinds.count(Fidelity::kPredicted) != 0) {
    html +=
        "<p class='banner'>PREDICTED figures: nothing ran; times come from the rig's "
        "description.</p>";
  }
  if (kinds.count(Fidelity::kMeasured) != 0) {
    html +=
        "<p class='banner measured'>MEASURED figures: wall-clock time on this machine's own "
        "devices.</p>";
  }
  return html;
}

std::string Machine(const Record& r) {
  std::string cpu = r.machine.value("cpu", "unknown processor");
  return fmt::format("<p class='small'>Machine: {}, {} cores. Kernels: {}. tandem {}, {}.</p>",
                     EscapeHtml(cpu), r.machine.value("cores", 0),
                     EscapeHtml(r.ops.empty() ? "none ran" : r.ops), EscapeHtml(r.tandem_version),
                     EscapeHtml(r.when));
}

std::string Section(const std::string& scenario, const std::vector<const Record*>& records) {
  std::vector<ReportCell> cells = CellsOf(records);
  std::set<std::string> rigs;
  for (const Record* r : records) rigs.insert(r->rig);
  std::string rig_list;
  for (const std::string& rig : rigs) rig_list += (rig_list.empty() ? "" : ", ") + rig;
  std::string html = fmt::format(
      "<h2 id='{0}'>{1}</h2><p class='small'>Scenario {0}; rig {2}; {3} cells, {4} records.</p>",
      EscapeHtml(scenario), EscapeHtml(records.front()->question), EscapeHtml(rig_list),
      cells.size(), records.size());
  html += CrossoverCharts(cells);
  html += ServeTable(cells);
  html += PhaseTable(cells);
  html += SizeCharts(cells);
  html += AttributionCharts(cells);
  html += MemoryTableHtml(cells);
  html += TrafficTable(cells);
  return html;
}

// Records by scenario, in the order they first appear.
std::vector<std::pair<std::string, std::vector<const Record*>>> ByScenario(
    const std::vector<Record>& records) {
  std::vector<std::pair<std::string, std::vector<const Record*>>> scenarios;
  for (const Record& r : records) {
    auto it = std::find_if(scenarios.begin(), scenarios.end(),
                           [&](const auto& s) { return s.first == r.scenario; });
    if (it == scenarios.end()) it = scenarios.insert(scenarios.end(), {r.scenario, {}});
    it->second.push_back(&r);
  }
  return scenarios;
}

}  // namespace

std::string RenderPicture(const ReportInput& input, const std::string& phase,
                          const std::string& plugin) {
  for (const auto& [scenario, records] : ByScenario(input.records)) {
    for (const CrossoverChart& c : CrossoversOf(CellsOf(records))) {
      const bool wanted = plugin.empty() || c.plugin == plugin;
      if (c.phase == phase && wanted) return StandaloneSvg(c.chart);
    }
  }
  return "";
}

std::string RenderReport(const ReportInput& input) {
  std::string html = fmt::format(
      "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
      "<meta name='viewport' content='width=device-width,initial-scale=1'><title>tandem: "
      "{0}</title><style>{1}</style></head><body>"
      "<h1>What the link between two devices costs: {0}</h1>",
      EscapeHtml(input.title), kStyle);
  html += Banner(input.records);
  if (!input.records.empty()) html += Machine(input.records.front());
  for (const auto& [scenario, records] : ByScenario(input.records))
    html += Section(scenario, records);
  html += fmt::format(
      "<h2>Reading this</h2><p class='small'>Link share is the largest device's exposed "
      "communication over the step: time its compute "
      "stood idle while a transfer touching it was on the wire. Medians over repetitions; error "
      "bars "
      "are 95 % bootstrap intervals; where a device's step goes is that of the one repetition "
      "whose step time is the median (of an even number the lower one of the middle), so that its "
      "parts add up. Emulated "
      "points are filled circles, measured ones squares, predicted ones hollow and dashed. Every "
      "number is defined in "
      "results/METRICS.md; the raw records lie beside this file. Made again by: "
      "<code>{}</code></p></body></html>\n",
      EscapeHtml(input.command));
  return html;
}

}  // namespace tandem
