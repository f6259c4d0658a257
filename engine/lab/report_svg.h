// Charts as inline SVG: a line chart over a logarithmic or linear axis, and stacked horizontal
// bars. They scale with the page, need no script, and use colours that colour-blind readers can
// tell apart.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/run/engine.h"

namespace tandem {

struct ChartPoint {
  double x = 0, y = 0;
  double low = 0, high = 0;  // interval; equal to y when there is none
  Fidelity fidelity = Fidelity::kEmulated;
};

struct ChartSeries {
  std::string name;
  std::vector<ChartPoint> points;  // by rising x
};

struct LineChart {
  std::string title;
  std::string x_label, y_label;
  bool log_x = true;
  bool log_y = false;
  bool percent_y = false;           // y is a share of one
  std::optional<double> threshold;  // a dashed line at this y
  std::vector<ChartSeries> series;
  std::string badge;  // "emulated": printed inside the chart
};

// Markers and strokes tell the fidelities apart: measured square and solid, emulated round and
// solid, predicted hollow and dashed.
std::string RenderLineChart(const LineChart& chart);
// The same as an SVG file of its own, title, badge and legend inside.
std::string StandaloneSvg(const LineChart& chart);

struct BarPart {
  std::string name;
  double value = 0;
};
struct BarRow {
  std::string label;
  std::vector<BarPart> parts;  // one order in all rows
};
struct BarChart {
  std::string title;
  std::string unit;  // "ms"
  std::vector<BarRow> rows;
  std::string badge;
};
std::string RenderBarChart(const BarChart& chart);

// Text made safe for HTML and SVG.
std::string EscapeHtml(const std::string& text);
// "98.4 MB", "1.2k": at most three figures.
std::string ShortNumber(double value);

}  // namespace tandem
