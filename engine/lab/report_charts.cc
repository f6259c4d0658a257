// The charts of a report: the crossover, speed against size, and where the time went.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "engine/lab/report.h"
#include "engine/lab/report_parts.h"
#include "engine/lab/report_svg.h"
#include "engine/lab/stats.h"

namespace tandem {
namespace {

using PhaseOf = std::optional<PhaseResult> Record::*;

constexpr std::pair<const char*, PhaseOf> kPhases[] = {{"prefill", &Record::prefill},
                                                       {"decode", &Record::decode}};

// The median of `value` over a cell's repetitions, with its interval.
std::optional<ChartPoint> Point(const ReportCell& cell, PhaseOf phase,
                                const std::function<double(const PhaseResult&)>& value) {
  std::vector<double> values;
  for (const Record* r : cell.records) {
    if (const std::optional<PhaseResult>& p = r->*phase) values.push_back(value(*p));
  }
  if (values.empty()) return std::nullopt;
  Interval interval = MedianInterval(values);
  return ChartPoint{static_cast<double>(cell.first.model.parameters), Median(values), interval.low,
                    interval.high, cell.first.fidelity};
}

std::string PlainSet(const std::set<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

// The fidelity badge of a chart: one word when all its points agree, both when they do not.
std::string BadgeOf(const std::vector<ChartSeries>& series) {
  std::set<std::string> kinds;
  for (const ChartSeries& s : series) {
    for (const ChartPoint& p : s.points) kinds.insert(ToString(p.fidelity));
  }
  return PlainSet(kinds);
}

// Lines over model size, one for each value of `line_of`.
std::vector<ChartSeries> SeriesOver(const std::vector<ReportCell>& cells, PhaseOf phase,
                                    const std::function<std::string(const ReportCell&)>& line_of,
                                    const std::function<double(const PhaseResult&)>& value) {
  std::vector<ChartSeries> series;
  for (const ReportCell& cell : cells) {
    std::optional<ChartPoint> point = Point(cell, phase, value);
    if (!point) continue;
    std::string name = line_of(cell);
    auto it = std::find_if(series.begin(), series.end(),
                           [&](const ChartSeries& s) { return s.name == name; });
    if (it == series.end()) it = series.insert(series.end(), ChartSeries{name, {}});
    const auto behind =
        std::upper_bound(it->points.begin(), it->points.end(), *point,
                         [](const ChartPoint& a, const ChartPoint& b) { return a.x < b.x; });
    it->points.insert(behind, *point);
  }
  return series;
}

size_t DistinctSizes(const std::vector<ReportCell>& cells) {
  std::set<uint64_t> sizes;
  for (const ReportCell& c : cells) sizes.insert(c.first.model.parameters);
  return sizes.size();
}

std::set<std::string> Values(const std::vector<ReportCell>& cells,
                             const std::function<std::string(const ReportCell&)>& of) {
  std::set<std::string> values;
  for (const ReportCell& c : cells) values.insert(of(c));
  return values;
}

std::string PluginOf(const ReportCell& cell) {
  std::string axis = cell.Axis("plugin");
  return axis.empty() ? cell.first.plugin : axis;
}

std::string LinkOf(const ReportCell& cell) { return cell.first.link; }

std::vector<ReportCell> Where(const std::vector<ReportCell>& cells,
                              const std::function<bool(const ReportCell&)>& keep) {
  std::vector<ReportCell> kept;
  std::copy_if(cells.begin(), cells.end(), std::back_inserter(kept), keep);
  return kept;
}

// "with pcie4-x8 the link takes more than half of the step below 310M parameters."
std::string CrossingText(const std::vector<ChartSeries>& series, const char* phase) {
  std::string html = "<ul class='crossings'>";
  for (const ChartSeries& s : series) {
    std::vector<std::pair<double, double>> curve;
    for (const ChartPoint& p : s.points) curve.emplace_back(p.x, p.y);
    if (curve.empty()) continue;
    std::optional<double> at = CrossingSize(curve, kDominates);
    std::string text;
    if (at) {
      bool falls = curve.front().second > kDominates;
      text = fmt::format("the link takes more than half of the {} step {} {} parameters", phase,
                         falls ? "below" : "above", ShortNumber(*at));
    } else if (curve.front().second > kDominates) {
      text = fmt::format("the link takes more than half of the {} step at every size here", phase);
    } else {
      double most = 0;
      for (const auto& [x, y] : curve) most = std::max(most, y);
      text = fmt::format("the link never takes half of the {} step here (at most {:.1f} %)", phase,
                         100 * most);
    }
    html += fmt::format("<li><b>{}</b>: {}</li>", EscapeHtml(s.name), text);
  }
  return html + "</ul>";
}

}  // namespace

std::optional<double> CrossingSize(const std::vector<std::pair<double, double>>& curve,
                                   double threshold) {
  for (size_t i = 1; i < curve.size(); ++i) {
    auto [x0, y0] = curve[i - 1];
    auto [x1, y1] = curve[i];
    if ((y0 > threshold) == (y1 > threshold) || y0 == y1) continue;
    double t = (threshold - y0) / (y1 - y0);
    return std::exp(std::log(x0) + t * (std::log(x1) - std::log(x0)));
  }
  return std::nullopt;
}

std::vector<CrossoverChart> CrossoversOf(const std::vector<ReportCell>& cells) {
  std::vector<CrossoverChart> charts;
  if (DistinctSizes(cells) < 2 || Values(cells, LinkOf).size() < 2) return charts;
  for (const std::string& plugin : Values(cells, PluginOf)) {
    std::vector<ReportCell> mine =
        Where(cells, [&](const ReportCell& c) { return PluginOf(c) == plugin; });
    for (const auto& [phase, member] : kPhases) {
      LineChart chart;
      chart.title = fmt::format("{}, {}: link share of the step against model size", plugin, phase);
      chart.x_label = "parameters";
      chart.y_label = "exposed link time / step time";
      chart.percent_y = true;
      chart.series =
          SeriesOver(mine, member, LinkOf, [](const PhaseResult& p) { return p.link_share; });
      double most = 0;
      for (const ChartSeries& s : chart.series) {
        for (const ChartPoint& p : s.points) most = std::max(most, p.y);
      }
      // A split that moves nothing between devices has no crossover to show.
      if (most == 0) continue;
      if (most > 0.4) chart.threshold = kDominates;
      chart.badge = BadgeOf(chart.series);
      charts.push_back({plugin, phase, std::move(chart)});
    }
  }
  return charts;
}

std::string CrossoverCharts(const std::vector<ReportCell>& cells) {
  std::string html;
  for (const CrossoverChart& c : CrossoversOf(cells)) {
    html += RenderLineChart(c.chart) + CrossingText(c.chart.series, c.phase.c_str());
  }
  return html;
}

std::string SizeCharts(const std::vector<ReportCell>& cells) {
  std::string html;
  if (DistinctSizes(cells) < 2) return html;
  for (const std::string& link : Values(cells, LinkOf)) {
    std::vector<ReportCell> mine =
        Where(cells, [&](const ReportCell& c) { return LinkOf(c) == link; });
    for (const auto& [phase, member] : kPhases) {
      LineChart rate;
      rate.title = fmt::format("{} on {}: tokens/s against model size", phase, link);
      rate.x_label = "parameters";
      rate.y_label = "tokens/s (log)";
      rate.log_y = true;
      rate.series =
          SeriesOver(mine, member, PluginOf, [](const PhaseResult& p) { return p.tokens_per_s; });
      if (rate.series.empty()) continue;
      rate.badge = BadgeOf(rate.series);
      LineChart latency = rate;
      latency.title = fmt::format("{} on {}: time of a step against model size", phase, link);
      latency.y_label = "ms per step (log)";
      latency.series = SeriesOver(mine, member, PluginOf, [](const PhaseResult& p) {
        return p.steps == 0 ? 0.0 : p.time.Millis() / p.steps;
      });
      html += RenderLineChart(rate) + RenderLineChart(latency);
    }
  }
  return html;
}

std::string AttributionCharts(const std::vector<ReportCell>& cells) {
  constexpr size_t kMostRows = 40;
  std::string html;
  for (const auto& [phase, member] : kPhases) {
    BarChart chart;
    chart.title = fmt::format(
        "Where each device's {} step goes, in the repetition whose step time is the median", phase);
    chart.unit = "ms";
    std::set<std::string> kinds;
    for (const ReportCell& cell : cells) {
      const PhaseResult* p = cell.MedianRepetition(member);
      if (p == nullptr || chart.rows.size() >= kMostRows) continue;
      kinds.insert(ToString(cell.first.fidelity));
      for (const DeviceAttribution& a : p->attribution) {
        auto ms = [&](Nanos t) { return t.Millis() / p->steps; };
        chart.rows.push_back({fmt::format("{} d{}", cell.Label(), a.device.value),
                              {{"compute", ms(a.compute)},
                               {"exposed link", ms(a.exposed_comm)},
                               {"waiting for the peer", ms(a.wait)},
                               {"launch", ms(a.launch)},
                               {"idle", ms(a.idle)}}});
      }
    }
    if (chart.rows.empty()) continue;
    chart.badge = PlainSet(kinds);
    html += RenderBarChart(chart);
  }
  return html;
}

}  // namespace tandem
