#include "engine/lab/probe_rounds.h"

#include "engine/base/error.h"
#include "engine/lab/stats.h"

namespace tandem {

void RunInTurn(std::span<ProbeArm> arms, const ProbeRounds& rounds, const ProbeProgress& progress) {
  const uint32_t passes = rounds.warm_ups + rounds.rounds;
  const size_t total = passes * arms.size();
  size_t done = 0;
  for (uint32_t pass = 0; pass < passes; ++pass) {
    for (ProbeArm& arm : arms) {
      if (progress) progress(done, total, arm.name);
      ++done;
      if (!arm.failed.empty()) continue;
      try {
        const std::vector<double> values = arm.sample();
        if (pass < rounds.warm_ups) continue;
        arm.series.resize(values.size());
        for (size_t i = 0; i < values.size(); ++i) arm.series[i].push_back(values[i]);
      } catch (const Error& error) {
        arm.failed = error.what();
        arm.series.clear();
      }
    }
  }
  if (progress) progress(total, total, "");
}

Spread SpreadOf(const std::vector<double>& values, double scale) {
  return Spread{.median = Median(values) * scale,
                .low = Percentile(values, 0.25) * scale,
                .high = Percentile(values, 0.75) * scale,
                .runs = static_cast<uint32_t>(values.size())};
}

}  // namespace tandem
