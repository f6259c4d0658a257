// Writes metrics in Prometheus' text format 0.0.4: each family's HELP and TYPE once, its samples
// together, label values escaped.
//
//   PrometheusText text;
//   text.Family("tandem_steps_total", "counter", "Steps run.");
//   text.Sample({{"phase", "decode"}}, 12);
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/serve/histogram.h"

namespace tandem {

class PrometheusText {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;

  // Begins a family; samples that follow belong to it.
  void Family(std::string_view name, std::string_view type, std::string_view help);
  void Sample(const Labels& labels, double value);
  void Samples(const Histogram& histogram);  // _bucket, _sum and _count
  const std::string& text() const { return text_; }

 private:
  void Line(std::string_view suffix, const Labels& labels, double value);

  std::string text_;
  std::string name_;
};

}  // namespace tandem
