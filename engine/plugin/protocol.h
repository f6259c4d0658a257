// What the engine and its planning helper say to each other over one socket: a request (JSON, then
// end of file) and a reply of JSON objects, one a line, so that what a plugin said before it
// crashed is not lost. The reply ends with {"done":true}.
//
// Both ends are of one build; the reply is still parsed as hostile, for a plugin shares the
// helper's memory.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/error.h"
#include "engine/plugin/planner.h"

namespace tandem {

struct PlanRequest {
  std::string plugin_path;  // absolute path of the .so
  bool plan = false;        // false: only describe
  std::vector<Knob> knobs;  // as the user gave them

  // The problem, by value: what PlanProblem points to. Empty when only describing.
  BlockGraph graph;
  Rig rig;
  PlanLimits limits;
  WireType wire = WireType::kF32;
  PathKind path = PathKind::kAuto;
  std::vector<double> tensor_split;

  PlanProblem problem() const { return {&graph, &rig, limits, wire, path, tensor_split}; }
};

std::string FormatRequest(const PlanRequest& request);
// Throws Error(kPlugin).
PlanRequest ParseRequest(std::string_view text);

// Lines the helper writes, each with its newline.
std::string StageLine(const std::string& stage);  // "load", "describe", "plan"
std::string DiagLine(int32_t level, const std::string& text);
std::string InfoLine(const PluginInfo& info);
std::string PlanLine(const Plan& plan);
std::string ErrorLine(const Error& error);
std::string DoneLine();

struct PlanReply {
  std::string stage;  // the last one begun
  std::vector<std::string> diagnostics;
  bool has_info = false;
  PluginInfo info;        // path and sha256 unset
  std::string plan_text;  // with call numbers
  bool has_error = false;
  ErrorCode error_code = ErrorCode::kPlugin;
  std::string error;
  bool done = false;
  std::string
      garbage;  // what is wrong with the first line that could not be read; empty: all could
};

// Reads as many whole lines as there are; never throws for what they hold.
PlanReply ParseReply(std::string_view text);

}  // namespace tandem
