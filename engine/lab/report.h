// Makes one self-contained HTML file of a results folder: inline SVG, no scripts needed, readable
// on a phone and on paper. Emulated and predicted figures are labelled at every place they appear,
// and never share a mark with measured ones.
#pragma once

#include <string>
#include <vector>

#include "engine/lab/record.h"

namespace tandem {

struct ReportInput {
  std::string title;
  std::vector<Record> records;  // of one or several scenarios
  std::string command;          // how to make it again
};

std::string RenderReport(const ReportInput& input);

// The first crossover chart of the records as an SVG file of its own; `phase` is "prefill" or
// "decode", `plugin` a split's name or empty for any. Empty when no scenario that has them varies
// both model size and link.
std::string RenderPicture(const ReportInput& input, const std::string& phase,
                          const std::string& plugin);

// The crossover of two curves over model size: where the share first passes `threshold`, linearly
// interpolated in log size; nullopt when it does not.
std::optional<double> CrossingSize(const std::vector<std::pair<double, double>>& size_and_share,
                                   double threshold);

}  // namespace tandem
