// The host's side of the plugin ABI: the callbacks that turn a plugin's calls into a Plan.
// Everything is copied; every call is checked for form here (sizes, kinds, counts, ids that were
// issued), for meaning by the verifier. Runs in the helper process; unit tests also run it in
// theirs.
//
//   PluginHost host(problem, info, knobs, [](int level, std::string text) { ... });
//   Plan plan = host.Run(*plugin);   // Error says which call was refused and why
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/plan/plan.h"
#include "engine/plugin/planner.h"
#include "engine/plugin/problem_view.h"
#include "tandem/plugin.h"

namespace tandem {

using DiagSink = std::function<void(int32_t level, const std::string& text)>;

// Checks what tandem_plugin_entry_v1() returned and copies it. Throws Error(kPlugin) naming `path`.
PluginInfo ReadDescriptor(const tandem_plugin* plugin, const std::string& path);

// All of a plugin's knobs, sorted by name: the given ones checked against their declared types and
// spelled canonically, the defaults for the others. Throws Error(kInvalidArgument).
std::vector<Knob> ResolveKnobs(const PluginInfo& plugin, const std::vector<Knob>& given);

class PluginHost {
 public:
  // `knobs` as ResolveKnobs gives them. The problem's graph and rig must outlive the host.
  PluginHost(const PlanProblem& problem, const PluginInfo& info, std::vector<Knob> knobs,
             DiagSink diag);
  PluginHost(const PluginHost&) = delete;
  PluginHost& operator=(const PluginHost&) = delete;

  // Calls plugin.plan() once. Throws Error(kPlugin), or the code that fits the plugin's status.
  Plan Run(const tandem_plugin& plugin);

  const tandem_host* abi() const { return &abi_; }
  const tandem_problem* problem() const { return view_.get(); }

 private:
  static constexpr uint32_t kMaxOps = 1'000'000;
  static constexpr uint32_t kMaxPlaces = 1'000'000;
  static constexpr uint32_t kMaxSlots = 65'536;
  static constexpr uint32_t kMaxPrograms = 256;
  static constexpr uint32_t kMaxLanes = 64;
  static constexpr uint32_t kMaxMicrobatches = 1024;
  static constexpr uint32_t kMaxOperands = 64;
  static constexpr uint32_t kMaxDiags = 256;

  // The callbacks; `Guard` gives them a number and lets no exception into the plugin.
  template <typename Body>
  static tandem_status Guard(void* ctx, const char* call, Body body);
  const char* KnobValue(const char* key) const;
  bool Supports(const std::string& feature) const;
  void AddPlace(const tandem_place* from);
  tandem_slot_id AddSlot(const tandem_slot* from);
  void OpenProgram(const tandem_program* from);
  void AppendOp(const tandem_op* from);
  Op ReadOp(const tandem_op& from, OpKind kind) const;
  void ReadMovement(const tandem_op& from, Op* op) const;
  void ReadOperands(const tandem_op& from, Op* op) const;
  tandem_status Check(VerifyResult* verified) noexcept;  // verified: null, or where to put it
  tandem_status Price(tandem_price* out) noexcept;
  void Reset();
  void Diag(int32_t level, const char* text);

  const PlanProblem& problem_;
  PluginInfo info_;
  std::vector<Knob> knobs_;
  DiagSink diag_;
  ProblemView view_;
  tandem_host abi_{};

  Plan draft_;
  uint32_t call_ = 0;  // place, slot, program and op calls since the last reset
  uint32_t n_ops_ = 0;
  uint32_t value_base_ = 0;  // ids of the open program's values are value_base_ + 1, ...
  uint32_t n_values_ = 0;    // values of the open program
  std::string refusal_;      // of the first call refused since the last reset
  std::string last_error_;   // the last error the plugin told of
  uint32_t n_diags_ = 0;
};

}  // namespace tandem
