// Small planning problems for this room's tests: a Llama-like block graph and a rig of equal
// devices.
#pragma once

#include <string>
#include <vector>

#include "engine/plugin/planner.h"

namespace tandem {

struct ProblemShape {
  uint32_t layers = 2;
  uint32_t kv_heads = 3;
  uint32_t devices = 2;
  bool tied = false;
  Bytes memory;      // of each device; 0: unlimited
  bool cpu = false;  // the last device is the host's processor
  std::vector<double> tensor_split;
};

// 160 FFN columns (5 units) and 320 vocabulary rows (5 units), F32 weights, hidden 32.
struct TestProblem {
  explicit TestProblem(const ProblemShape& shape = {});
  TestProblem(const TestProblem&) = delete;
  TestProblem& operator=(const TestProblem&) = delete;

  BlockGraph graph;
  Rig rig;
  PlanProblem problem;
};

}  // namespace tandem
