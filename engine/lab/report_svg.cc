#include "engine/lab/report_svg.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace tandem {
namespace {

// Okabe and Ito's palette, darkest first.
constexpr std::array<const char*, 8> kColours{"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                              "#e69f00", "#56b4e9", "#000000", "#7f7f00"};
constexpr double kWidth = 640, kHeight = 360;
constexpr double kLeft = 62, kRight = 16, kTop = 34, kBottom = 48;

const char* Colour(size_t index) { return kColours[index % kColours.size()]; }

struct Axis {
  double low = 0, high = 1;
  bool log = false;
  double from = 0, to = 1;  // pixels
  double At(double v) const {
    double t = log ? (std::log(v) - std::log(low)) / (std::log(high) - std::log(low))
                   : (v - low) / (high - low);
    return from + (to - from) * t;
  }
  std::vector<double> Ticks() const {
    std::vector<double> ticks;
    if (log) {
      // 1, 2 and 5 of each decade, thinned to decades when there are many.
      double decades = std::log10(high / low);
      for (int e = static_cast<int>(std::floor(std::log10(low))); e <= std::ceil(std::log10(high));
           ++e) {
        for (double m : {1.0, 2.0, 5.0}) {
          double v = m * std::pow(10.0, e);
          if (v >= low * 0.999 && v <= high * 1.001 && (decades < 2.2 || m == 1.0))
            ticks.push_back(v);
        }
      }
      return ticks;
    }
    double raw = (high - low) / 5;
    double magnitude = std::pow(10.0, std::floor(std::log10(raw)));
    double step = magnitude * (raw / magnitude > 5   ? 10
                               : raw / magnitude > 2 ? 5
                               : raw / magnitude > 1 ? 2
                                                     : 1);
    for (double v = std::ceil(low / step) * step; v <= high * 1.0001; v += step) ticks.push_back(v);
    return ticks;
  }
};

Axis XAxis(const LineChart& chart) {
  Axis axis;
  axis.log = chart.log_x;
  axis.low = 1e300;
  axis.high = -1e300;
  for (const ChartSeries& s : chart.series) {
    for (const ChartPoint& p : s.points) {
      axis.low = std::min(axis.low, p.x);
      axis.high = std::max(axis.high, p.x);
    }
  }
  if (axis.low > axis.high) axis.low = axis.high = 1;
  if (chart.log_x) {
    axis.low /= 1.15;
    axis.high *= 1.15;
  } else if (axis.low == axis.high) {
    axis.low -= 0.5;
    axis.high += 0.5;
  }
  axis.from = kLeft;
  axis.to = kWidth - kRight;
  return axis;
}

Axis YAxis(const LineChart& chart) {
  Axis axis;
  axis.log = chart.log_y;
  axis.low = chart.log_y ? 1e300 : 0;
  axis.high = chart.percent_y ? 0.05 : 0;
  for (const ChartSeries& s : chart.series) {
    for (const ChartPoint& p : s.points) {
      axis.high = std::max({axis.high, p.y, p.high});
      if (chart.log_y && p.y > 0) axis.low = std::min(axis.low, p.y);
    }
  }
  if (chart.threshold) axis.high = std::max(axis.high, *chart.threshold * 1.05);
  if (chart.log_y) {
    axis.low = axis.low > axis.high ? axis.high / 10 : axis.low / 1.3;
    axis.high *= 1.3;
  } else {
    axis.high = axis.high == 0 ? 1 : axis.high * 1.05;
    if (chart.percent_y) axis.high = std::min(axis.high, 1.0);
  }
  axis.from = kHeight - kBottom;
  axis.to = kTop;
  return axis;
}

std::string Marker(const ChartPoint& p, double x, double y, const char* colour) {
  switch (p.fidelity) {
    case Fidelity::kMeasured:
      return fmt::format("<rect x='{:.1f}' y='{:.1f}' width='8' height='8' fill='{}'/>", x - 4,
                         y - 4, colour);
    case Fidelity::kPredicted:
      return fmt::format(
          "<circle cx='{:.1f}' cy='{:.1f}' r='4' fill='#fff' stroke='{}' stroke-width='1.5'/>", x,
          y, colour);
    case Fidelity::kEmulated:
      break;
  }
  return fmt::format("<circle cx='{:.1f}' cy='{:.1f}' r='3.5' fill='{}'/>", x, y, colour);
}

std::string Frame(const LineChart& chart, const Axis& x, const Axis& y) {
  std::string svg;
  for (double tick : x.Ticks()) {
    svg += fmt::format(
        "<line x1='{0:.1f}' x2='{0:.1f}' y1='{1}' y2='{2}' class='grid'/>"
        "<text x='{0:.1f}' y='{3}' class='tick' text-anchor='middle'>{4}</text>",
        x.At(tick), kTop, kHeight - kBottom, kHeight - kBottom + 16, ShortNumber(tick));
  }
  for (double tick : y.Ticks()) {
    std::string label = chart.percent_y ? fmt::format("{:.3g} %", 100 * tick) : ShortNumber(tick);
    svg += fmt::format(
        "<line x1='{0}' x2='{1}' y1='{2:.1f}' y2='{2:.1f}' class='grid'/>"
        "<text x='{3}' y='{4:.1f}' class='tick' text-anchor='end'>{5}</text>",
        kLeft, kWidth - kRight, y.At(tick), kLeft - 6, y.At(tick) + 4, label);
  }
  svg += fmt::format("<text x='{}' y='{}' class='axis' text-anchor='middle'>{}</text>",
                     (kLeft + kWidth - kRight) / 2, kHeight - 10, EscapeHtml(chart.x_label));
  svg += fmt::format(
      "<text transform='translate(14,{}) rotate(-90)' class='axis' text-anchor='middle'>{}</text>",
      (kTop + kHeight - kBottom) / 2, EscapeHtml(chart.y_label));
  return svg;
}

std::string SeriesSvg(const ChartSeries& series, const Axis& x, const Axis& y, const char* colour) {
  std::string svg;
  for (size_t i = 1; i < series.points.size(); ++i) {
    const ChartPoint &a = series.points[i - 1], &b = series.points[i];
    bool dashed = a.fidelity == Fidelity::kPredicted || b.fidelity == Fidelity::kPredicted;
    svg += fmt::format(
        "<line x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}' stroke='{}' stroke-width='2'{}/>",
        x.At(a.x), y.At(a.y), x.At(b.x), y.At(b.y), colour,
        dashed ? " stroke-dasharray='5 4'" : "");
  }
  for (const ChartPoint& p : series.points) {
    if (p.high > p.low) {
      svg += fmt::format(
          "<line x1='{0:.1f}' x2='{0:.1f}' y1='{1:.1f}' y2='{2:.1f}' stroke='{3}' "
          "stroke-width='1'/>",
          x.At(p.x), y.At(p.low), y.At(p.high), colour);
    }
    svg += Marker(p, x.At(p.x), y.At(p.y), colour);
  }
  return svg;
}

std::string Legend(const std::vector<std::string>& names) {
  std::string html = "<div class='legend'>";
  for (size_t i = 0; i < names.size(); ++i) {
    html += fmt::format("<span><i style='background:{}'></i>{}</span>", Colour(i),
                        EscapeHtml(names[i]));
  }
  return html + "</div>";
}

std::string Figure(const std::string& title, const std::string& badge, double height,
                   const std::string& body, const std::vector<std::string>& legend) {
  std::string stamp =
      badge.empty() ? "" : fmt::format("<span class='badge {0}'>{0}</span> ", EscapeHtml(badge));
  return fmt::format(
      "<figure><figcaption>{}{}</figcaption><svg viewBox='0 0 {} {}' role='img' "
      "aria-label='{}'>{}</svg>{}</figure>\n",
      stamp, EscapeHtml(title), kWidth, height, EscapeHtml(title), body, Legend(legend));
}

// Everything inside a line chart's axes, axes included.
std::string LineBody(const LineChart& chart) {
  Axis x = XAxis(chart), y = YAxis(chart);
  std::string svg = Frame(chart, x, y);
  if (chart.threshold) {
    svg += fmt::format(
        "<line x1='{0}' x2='{1}' y1='{2:.1f}' y2='{2:.1f}' stroke='#555' stroke-dasharray='2 3'/>",
        kLeft, kWidth - kRight, y.At(*chart.threshold));
  }
  for (size_t i = 0; i < chart.series.size(); ++i)
    svg += SeriesSvg(chart.series[i], x, y, Colour(i));
  if (!chart.badge.empty()) {
    std::string stamp = chart.badge;
    std::transform(stamp.begin(), stamp.end(), stamp.begin(),
                   [](unsigned char c) { return std::toupper(c); });
    svg += fmt::format("<text x='{}' y='{}' class='stamp' text-anchor='end'>{}</text>",
                       kWidth - kRight, kTop - 10, EscapeHtml(stamp));
  }
  return svg;
}

}  // namespace

std::string EscapeHtml(const std::string& text) {
  std::string safe;
  for (char c : text) {
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      case '\'':
        safe += "&#39;";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

std::string ShortNumber(double value) {
  double size = std::abs(value);
  if (size >= 1e9) return fmt::format("{:.3g}G", value / 1e9);
  if (size >= 1e6) return fmt::format("{:.3g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:.3g}k", value / 1e3);
  return fmt::format("{:.3g}", value);
}

std::string RenderLineChart(const LineChart& chart) {
  std::vector<std::string> names;
  for (const ChartSeries& s : chart.series) names.push_back(s.name);
  return Figure(chart.title, chart.badge, kHeight, LineBody(chart), names);
}

std::string StandaloneSvg(const LineChart& chart) {
  constexpr double kTitle = 30, kLine = 20;
  double height = kTitle + kHeight + kLine * static_cast<double>((chart.series.size() + 1) / 2) + 8;
  std::string svg = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' font-family='sans-serif'>"
      "<style>.grid{{stroke:#ddd}}.tick{{font-size:12px;fill:#333}}.axis{{font-size:13px;fill:#111}"
      "}"
      ".stamp{{font-size:13px;font-weight:700;fill:#d55e00}}</style>"
      "<rect width='{0}' height='{1}' fill='#fff'/>"
      "<text x='{2}' y='22' font-size='16' font-weight='700' "
      "text-anchor='middle'>{3}</text>"
      "<g transform='translate(0,{4})'>{5}</g>",
      kWidth, height, kWidth / 2, EscapeHtml(chart.title), kTitle, LineBody(chart));
  for (size_t i = 0; i < chart.series.size(); ++i) {
    double x = kLeft + static_cast<double>(i % 2) * (kWidth - kLeft) / 2;
    double y = kTitle + kHeight + kLine * static_cast<double>(i / 2) + 4;
    svg += fmt::format(
        "<rect x='{}' y='{}' width='12' height='12' fill='{}'/><text x='{}' y='{}' "
        "class='axis'>{}</text>",
        x, y, Colour(i), x + 18, y + 11, EscapeHtml(chart.series[i].name));
  }
  return svg + "</svg>\n";
}

std::string RenderBarChart(const BarChart& chart) {
  constexpr double kRow = 26, kLabel = 210;
  double longest = 0;
  for (const BarRow& row : chart.rows) {
    double total = 0;
    for (const BarPart& part : row.parts) total += part.value;
    longest = std::max(longest, total);
  }
  double height = 16 + kRow * static_cast<double>(chart.rows.size());
  double scale = longest == 0 ? 0 : (kWidth - kLabel - 70) / longest;
  std::string svg;
  std::vector<std::string> names;
  for (size_t r = 0; r < chart.rows.size(); ++r) {
    const BarRow& row = chart.rows[r];
    double y = 8 + kRow * static_cast<double>(r), x = kLabel, total = 0;
    svg += fmt::format("<text x='{}' y='{:.1f}' class='tick' text-anchor='end'>{}</text>",
                       kLabel - 6, y + 15, EscapeHtml(row.label));
    for (size_t i = 0; i < row.parts.size(); ++i) {
      double width = row.parts[i].value * scale;
      svg += fmt::format(
          "<rect x='{:.1f}' y='{:.1f}' width='{:.1f}' height='18' fill='{}'><title>{}: {} "
          "{}</title></rect>",
          x, y, width, Colour(i), EscapeHtml(row.parts[i].name), ShortNumber(row.parts[i].value),
          chart.unit);
      x += width;
      total += row.parts[i].value;
    }
    svg += fmt::format("<text x='{:.1f}' y='{:.1f}' class='tick'>{} {}</text>", x + 4, y + 15,
                       ShortNumber(total), chart.unit);
    if (r == 0) {
      for (const BarPart& part : row.parts) names.push_back(part.name);
    }
  }
  return Figure(chart.title, chart.badge, height, svg, names);
}

}  // namespace tandem
