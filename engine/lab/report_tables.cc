// The tables of a report: every cell's figures, memory per device, bytes per link.
#include <fmt/core.h>

#include <algorithm>
#include <functional>
#include <set>

#include "engine/base/device_name.h"
#include "engine/lab/cell_label.h"
#include "engine/lab/report_parts.h"
#include "engine/lab/report_svg.h"
#include "engine/lab/stats.h"

namespace tandem {
namespace {

using Row = std::vector<std::string>;

// First row is the header, repeated on every printed page; cells are escaped here.
std::string Table(const std::vector<Row>& rows) {
  std::string html = "<div class='scroll'><table><thead>";
  for (size_t r = 0; r < rows.size(); ++r) {
    html += r == 1 ? "</thead><tbody><tr>" : "<tr>";
    for (const std::string& cell : rows[r])
      html += fmt::format("<{0}>{1}</{0}>", r == 0 ? "th" : "td", EscapeHtml(cell));
    html += "</tr>\n";
  }
  return html + (rows.size() > 1 ? "</tbody></table></div>\n" : "</thead></table></div>\n");
}

template <typename F>
std::string MedianOf(const ReportCell& cell, std::optional<PhaseResult> Record::* phase, F value,
                     const std::function<std::string(double)>& format) {
  std::vector<double> values;
  for (const Record* r : cell.records) {
    if (r->*phase) values.push_back(value(*(r->*phase)));
  }
  return values.empty() ? "-" : format(Median(values));
}

// Never with an exponent: rates are read beside those that commands print.
std::string RateText(double rate) {
  return rate < 1000 ? fmt::format("{:.4g}", rate) : fmt::format("{:.0f}", rate);
}
std::string PercentText(double percent) { return fmt::format("{:.1f} %", percent); }
std::string MillisText(double ms) {
  return ms < 100 ? fmt::format("{:.3g}", ms) : fmt::format("{:.0f}", ms);
}

std::string Predicted(const std::optional<double>& value) { return value ? RateText(*value) : "-"; }

std::string Amount(Bytes bytes) {
  return bytes.value == 0 ? "0" : ShortNumber(static_cast<double>(bytes.value)) + "B";
}

}  // namespace

std::string ReportCell::Axis(const std::string& name) const {
  for (const auto& [axis, value] : first.cell) {
    if (axis == name) return value;
  }
  return "";
}

std::string ReportCell::Label() const {
  std::string label;
  for (const auto& [axis, value] : first.cell) {
    label += (label.empty() ? "" : " ") + AxisLabel(axis, value);
  }
  return label.empty() ? first.plugin : label;
}

const PhaseResult* ReportCell::MedianRepetition(std::optional<PhaseResult> Record::* phase) const {
  std::vector<const PhaseResult*> results;
  for (const Record* r : records) {
    if (r->*phase && (r->*phase)->steps > 0) results.push_back(&*(r->*phase));
  }
  if (results.empty()) return nullptr;
  // A mean step's time, by products: repetitions may have different numbers of steps.
  std::ranges::stable_sort(results, [](const PhaseResult* a, const PhaseResult* b) {
    return a->time.Seconds() * b->steps < b->time.Seconds() * a->steps;
  });
  return results[(results.size() - 1) / 2];
}

std::vector<ReportCell> CellsOf(const std::vector<const Record*>& records) {
  std::vector<ReportCell> cells;
  std::map<std::string, size_t> index;
  for (const Record* r : records) {
    // A cell run at another fidelity, or on another machine, is another cell.
    std::string key = std::string(ToString(r->fidelity)) + r->rig_fingerprint + r->machine.dump();
    for (const auto& [axis, value] : r->cell) key += "\x1f" + value;
    auto [it, added] = index.try_emplace(key, cells.size());
    if (added) cells.push_back({*r, {}});
    cells[it->second].records.push_back(r);
  }
  return cells;
}

std::string PhaseTable(const std::vector<ReportCell>& cells) {
  std::vector<Row> rows{{"cell", "model", "parameters", "link", "prefill tok/s",
                         "prefill predicted", "prefill link share", "decode tok/s",
                         "decode predicted", "decode ms/step", "decode link share", "repetitions",
                         "fidelity"}};
  auto rate = [](const PhaseResult& p) { return p.tokens_per_s; };
  auto share = [](const PhaseResult& p) { return 100 * p.link_share; };
  auto step = [](const PhaseResult& p) { return p.steps == 0 ? 0.0 : p.time.Millis() / p.steps; };
  for (const ReportCell& cell : cells) {
    const Record& r = cell.first;
    if (r.serve) continue;
    if (cell.Refused()) {
      rows.push_back({cell.Label(), r.model.name,
                      ShortNumber(static_cast<double>(r.model.parameters)), r.link,
                      RefusalLabel(r.refused), "", "", "", "", "", "", "", ToString(r.fidelity)});
      continue;
    }
    rows.push_back({cell.Label(), r.model.name,
                    ShortNumber(static_cast<double>(r.model.parameters)), r.link,
                    MedianOf(cell, &Record::prefill, rate, RateText),
                    Predicted(r.predicted.prefill_tokens_per_s),
                    MedianOf(cell, &Record::prefill, share, PercentText),
                    MedianOf(cell, &Record::decode, rate, RateText),
                    Predicted(r.predicted.decode_tokens_per_s),
                    MedianOf(cell, &Record::decode, step, MillisText),
                    MedianOf(cell, &Record::decode, share, PercentText),
                    std::to_string(cell.records.size()), ToString(r.fidelity)});
  }
  return rows.size() == 1 ? "" : "<h3>Every cell</h3>" + Table(rows);
}

std::string ServeTable(const std::vector<ReportCell>& cells) {
  std::vector<Row> rows{{"cell", "loop", "client", "requests", "failed", "rate asked", "rate got",
                         "output tok/s", "TTFT p50 ms", "TTFT p90 ms", "TPOT p50 ms", "E2E p50 ms",
                         "clock", "fidelity"}};
  for (const ReportCell& cell : cells) {
    for (const Record* r : cell.records) {
      if (!r->serve) continue;
      const ServeResult& s = *r->serve;
      rows.push_back({cell.Label(), s.loop, s.client, std::to_string(s.requests),
                      std::to_string(s.failed), fmt::format("{:.3g}", s.rate_requested),
                      fmt::format("{:.3g}", s.rate_achieved), RateText(s.output_tokens_per_s),
                      RateText(s.ttft_ms.p50), s.ttft_ms.n >= 10 ? RateText(s.ttft_ms.p90) : "-",
                      RateText(s.tpot_ms.p50), RateText(s.e2e_ms.p50),
                      r->clock == ClockKind::kVirtual ? "rig time" : "wall",
                      ToString(r->fidelity)});
    }
  }
  return rows.size() == 1 ? "" : "<h3>Under load</h3>" + Table(rows);
}

std::string MemoryTableHtml(const std::vector<ReportCell>& cells) {
  std::vector<Row> rows{{"model", "plugin", "device", "weights", "slots", "KV", "activations",
                         "workspace", "links", "total", "capacity"}};
  std::set<std::string> seen;
  for (const ReportCell& cell : cells) {
    const Record& r = cell.first;
    // Links do not change memory: one row a (model, rig, plugin).
    if (!seen.insert(r.model.name + "\x1f" + r.plan_hash + "\x1f" + r.rig).second) continue;
    for (const MemoryRow& m : r.memory.rows) {
      rows.push_back({r.model.name, r.plugin, DeviceName(m.device), Amount(m.weights),
                      Amount(m.slots), Amount(m.kv), Amount(m.activations), Amount(m.workspace),
                      Amount(m.links), Amount(m.total()),
                      m.capacity.value == 0 ? "-" : Amount(m.capacity)});
    }
  }
  return rows.size() == 1
             ? ""
             : "<details><summary>Memory per device</summary>" + Table(rows) + "</details>";
}

std::string TrafficTable(const std::vector<ReportCell>& cells) {
  std::vector<Row> rows{{"cell", "phase", "op", "path", "hops", "bytes", "bytes/token"}};
  for (const ReportCell& cell : cells) {
    for (auto [name, phase] :
         {std::pair{"prefill", &cell.first.prefill}, std::pair{"decode", &cell.first.decode}}) {
      if (!*phase) continue;
      for (const TrafficSum& t : (*phase)->traffic) {
        rows.push_back(
            {cell.Label(), name, t.op, t.path, std::to_string(t.count),
             std::to_string(t.bytes.value),
             (*phase)->tokens == 0
                 ? "-"
                 : fmt::format("{:.0f}", static_cast<double>(t.bytes.value) / (*phase)->tokens)});
      }
    }
  }
  return rows.size() == 1
             ? ""
             : "<details><summary>Bytes on every path</summary>" + Table(rows) + "</details>";
}

}  // namespace tandem
