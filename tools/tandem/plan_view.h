// A plan for people and for scripts: the memory per device, the bytes on each link, its text.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/base/device_name.h"
#include "engine/plan/cost.h"
#include "engine/plugin/planner.h"

namespace tandem {

// Traffic of a prefill of 512 tokens with one row sampled, and of one decode step of one sequence,
// on the first lane; one row a hop.
std::vector<TrafficRow> StandardTraffic(const PlannedRun& planned, const BlockGraph& graph,
                                        const Rig& rig, const PlanLimits& limits);

nlohmann::json TrafficJson(const std::vector<TrafficRow>& traffic);
std::string MemoryText(const MemoryTable& memory);
std::string TrafficText(const std::vector<TrafficRow>& traffic);

// What `auto` looked for and what it found.
nlohmann::json AutoUseJson(const AutoUse& use);
nlohmann::json CandidatesJson(const PlannedRun& run);
std::string CandidatesText(const PlannedRun& run);

}  // namespace tandem
