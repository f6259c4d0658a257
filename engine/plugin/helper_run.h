// One run of one plugin in the helper process: what Planner's plugins and `auto` are made of.
#pragma once

#include <vector>

#include "engine/plugin/discovery.h"
#include "engine/plugin/planner.h"

namespace tandem {

// Throws Error(kPlugin) when the plugin breaks its contract in any way.
PluginInfo DescribeFile(const PlannerOptions& options, const PluginFile& file);

// The verified plan. Throws as Planner::MakePlan does.
PlannedRun RunPlugin(const PlannerOptions& options, const PluginFile& file,
                     const PlanProblem& problem, const std::vector<Knob>& knobs);

}  // namespace tandem
