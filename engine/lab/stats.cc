#include "engine/lab/stats.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace tandem {

double Percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  double at = p * static_cast<double>(values.size() - 1);
  auto below = static_cast<size_t>(at);
  size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (values[above] - values[below]) * (at - static_cast<double>(below));
}

LatencySummary Summarize(const std::vector<double>& values) {
  LatencySummary s;
  s.n = static_cast<uint32_t>(values.size());
  if (values.empty()) return s;
  s.mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  s.p50 = Percentile(values, 0.50);
  s.p90 = Percentile(values, 0.90);
  s.p95 = Percentile(values, 0.95);
  s.p99 = Percentile(values, 0.99);
  s.max = *std::max_element(values.begin(), values.end());
  return s;
}

Interval MedianInterval(const std::vector<double>& values) {
  if (values.empty()) return {};
  if (values.size() < 3) {
    auto [low, high] = std::minmax_element(values.begin(), values.end());
    return {*low, *high};
  }
  constexpr int kResamples = 2000;
  std::mt19937_64 random(1);
  std::vector<double> medians;
  std::vector<double> draw(values.size());
  for (int i = 0; i < kResamples; ++i) {
    // Modulo keeps the draws the same on every standard library.
    for (double& x : draw) x = values[random() % values.size()];
    medians.push_back(Median(draw));
  }
  return {Percentile(medians, 0.025), Percentile(medians, 0.975)};
}

}  // namespace tandem
