#include "engine/serve/prometheus_text.h"

#include <fmt/format.h>

#include <cmath>

namespace tandem {
namespace {

std::string Escaped(std::string_view value) {
  std::string result;
  for (char c : value) {
    if (c == '\\' || c == '"') result += '\\';
    if (c == '\n') {
      result += "\\n";
    } else {
      result += c;
    }
  }
  return result;
}

// Whole numbers without an exponent, so that counters read as counts.
std::string Number(double value) {
  if (std::floor(value) == value && std::fabs(value) < 9e15) return fmt::format("{:.0f}", value);
  return fmt::format("{}", value);
}

}  // namespace

void PrometheusText::Family(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void PrometheusText::Line(std::string_view suffix, const Labels& labels, double value) {
  std::string inside;
  for (const auto& [key, label] : labels) {
    inside += fmt::format("{}{}=\"{}\"", inside.empty() ? "" : ",", key, Escaped(label));
  }
  if (!inside.empty()) inside = "{" + inside + "}";
  text_ += fmt::format("{}{}{} {}\n", name_, suffix, inside, Number(value));
}

void PrometheusText::Sample(const Labels& labels, double value) { Line("", labels, value); }

void PrometheusText::Samples(const Histogram& histogram) {
  uint64_t below = 0;
  for (size_t i = 0; i < histogram.edges().size(); ++i) {
    below += histogram.counts()[i];
    Line("_bucket", {{"le", fmt::format("{}", histogram.edges()[i])}}, static_cast<double>(below));
  }
  Line("_bucket", {{"le", "+Inf"}}, static_cast<double>(histogram.count()));
  Line("_sum", {}, histogram.sum());
  Line("_count", {}, static_cast<double>(histogram.count()));
}

}  // namespace tandem
