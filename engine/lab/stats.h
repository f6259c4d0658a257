// The few statistics that records and reports use. Definitions: results/METRICS.md.
#pragma once

#include <vector>

#include "engine/lab/record.h"

namespace tandem {

// Linear interpolation between order statistics (numpy's default); 0 for an empty sample.
double Percentile(std::vector<double> values, double p);
inline double Median(std::vector<double> values) { return Percentile(std::move(values), 0.5); }

// Mean, percentiles and maximum of a sample.
LatencySummary Summarize(const std::vector<double>& values);

// A 95 % interval for the median of a sample by bootstrap (2,000 resamples, seeded); for fewer than
// three values, their range.
struct Interval {
  double low = 0;
  double high = 0;
};
Interval MedianInterval(const std::vector<double>& values);

}  // namespace tandem
