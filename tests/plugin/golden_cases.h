// The plans kept as text under plugins/NAME/golden: one list for the test that compares them and
// the tool that writes them.
#pragma once

#include <string>
#include <vector>

#include "engine/plugin/planner.h"
#include "tests/plugin/test_problem.h"

namespace tandem {

struct GoldenCase {
  std::string plugin;
  std::string name;  // plugins/PLUGIN/golden/NAME.txt
  ProblemShape shape;
  std::vector<Knob> knobs;
  std::string path() const { return "plugins/" + plugin + "/golden/" + name + ".txt"; }
};

inline std::vector<GoldenCase> GoldenCases() {
  const ProblemShape two{.layers = 1, .kv_heads = 3, .devices = 2};
  const ProblemShape three{.layers = 1, .kv_heads = 2, .devices = 3};
  ProblemShape uneven = two;
  uneven.tensor_split = {1, 2};
  return {
      {"single", "2_devices", two, {}},
      {"replicas", "2_devices", two, {}},
      {"layer_split", "2_devices", {.layers = 2}, {}},
      {"layer_split",
       "3_devices_4_decode_groups",
       three,
       {{"microbatches", "1"}, {"decode_microbatches", "4"}}},
      {"tensor_split", "2_devices", two, {}},
      {"tensor_split", "2_devices_1_2", uneven, {}},
      {"tensor_split", "3_devices", three, {}},
      {"offload", "all_resident", two, {}},
      {"offload", "no_layer_resident", two, {{"resident_layers", "0"}}},
      {"offload", "nothing_resident", two, {{"resident_layers", "0"}, {"resident_ends", "false"}}},
  };
}

}  // namespace tandem
