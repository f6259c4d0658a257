// What a report is made of: cells (the repetitions of one combination), and the sections that show
// them. Internal to the report.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/lab/record.h"
#include "engine/lab/report_svg.h"

namespace tandem {

// All repetitions of one cell.
struct ReportCell {
  Record first;
  std::vector<const Record*> records;

  std::string Axis(const std::string& name) const;  // "" when the cell does not vary it
  std::string Label() const;
  bool Refused() const { return !first.refused.empty(); }
  // The repetition whose step time is the median (of an even number the lower one of the middle);
  // null when none has the phase. Its parts add up, as medians of parts would not.
  const PhaseResult* MedianRepetition(std::optional<PhaseResult> Record::* phase) const;
};

std::vector<ReportCell> CellsOf(const std::vector<const Record*>& records);

// Share of the link at which it is said to dominate.
inline constexpr double kDominates = 0.5;

// One crossover: link share over model size, a line a link.
struct CrossoverChart {
  std::string plugin;
  std::string phase;
  LineChart chart;
};
std::vector<CrossoverChart> CrossoversOf(const std::vector<ReportCell>& cells);

// Chart sections of one scenario's cells; empty strings where a chart has nothing to show.
std::string CrossoverCharts(const std::vector<ReportCell>& cells);
std::string SizeCharts(const std::vector<ReportCell>& cells);
std::string AttributionCharts(const std::vector<ReportCell>& cells);

// Tables of one scenario's cells.
std::string PhaseTable(const std::vector<ReportCell>& cells);
std::string ServeTable(const std::vector<ReportCell>& cells);
std::string MemoryTableHtml(const std::vector<ReportCell>& cells);
std::string TrafficTable(const std::vector<ReportCell>& cells);

}  // namespace tandem
