// The candidates of `auto`: every combination of a plugin's knobs over their grids.
#pragma once

#include <vector>

#include "engine/plugin/planner.h"

namespace tandem {

// Most combinations tried of one plugin; of a larger grid the first ones, in the order of the
// knobs' names and grids.
inline constexpr size_t kMaxGridPoints = 64;

// Knobs to give, one list a candidate. A fixed knob keeps its value (knobs the plugin does not
// declare are not given).
std::vector<std::vector<Knob>> GridPoints(const PluginInfo& plugin, const std::vector<Knob>& fixed);

}  // namespace tandem
