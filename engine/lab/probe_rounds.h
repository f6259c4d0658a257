// Measurements of several things in turn: after a warm-up each, one of every thing a round, so that
// whatever the machine does meanwhile meets all of them alike.
//
// One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/rig/measurements.h"

namespace tandem {

struct ProbeArm {
  std::string name;  // for progress
  // One measurement: a number for each series, always as many.
  std::function<std::vector<double>()> sample;
  // What came of it.
  std::vector<std::vector<double>> series;
  std::string failed;  // what an Error said: the arm is left out from there on, and has no series
};

struct ProbeRounds {
  uint32_t warm_ups = 1;
  uint32_t rounds = 9;
  uint32_t repeats = 100;  // most movements of a small message in one measurement
};

// How far a probe is: `done` of `total` measurements, and what is next.
using ProbeProgress = std::function<void(size_t done, size_t total, std::string_view what)>;

void RunInTurn(std::span<ProbeArm> arms, const ProbeRounds& rounds, const ProbeProgress& progress);

// Median and quartiles, each value multiplied by `scale`.
Spread SpreadOf(const std::vector<double>& values, double scale = 1);

}  // namespace tandem
