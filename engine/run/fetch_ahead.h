// Fetches that begin before their step does: once all of a step is asked for, the first FETCHes of
// the lane's next step (engine/plan/lead_fetches.h) are put in the copy-in queues behind the last
// use of their slots, and cross while the tail of this step computes and the host chooses tokens.
// The next step then finds its bytes there or under way in the very queue that its FETCH marks.
//
// What is moved ahead is booked with the step that wanted it, so counted bytes stay those of the
// plan. For devices that work on their own time. One thread, the executor's.
//
//   if (ahead.Take(slot)) ...              // in a FETCH: nothing to copy
//   ahead.Ask(program, order, copy);       // after the last op of a step has been asked for
//   ahead.ReadTimes(program, order, trace);
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/base/function_ref.h"
#include "engine/plan/lead_fetches.h"
#include "engine/run/compiled_program.h"
#include "engine/run/step_order.h"

namespace tandem {

class FetchAhead {
 public:
  // The plan and the programs outlive it.
  FetchAhead(const Plan& plan, std::span<const CompiledProgram> programs, const StepOrder& order);

  // Whether what a FETCH brings into the slot has been asked for already; then it counts as
  // brought.
  bool Take(SlotId slot);
  // `copy` puts the copy of a FETCH in its queues.
  void Ask(size_t program, StepOrder& order, FunctionRef<void(const CompiledOp&)> copy);
  // Lets the FETCHes that were under way when the step began begin when they did, before its start.
  void ReadTimes(size_t program, const StepOrder& order, OverlapTrace& trace);
  // After a step that failed: slots hold nothing. The queues are empty.
  void Forget();

 private:
  // Two copies into one slot are under way at once as far as times go: the step's own, whose begin
  // is read when the step ends, and the next one's.
  struct SlotState {
    std::unique_ptr<DeviceEvent> begin[2];
    uint32_t latest = 0;  // of `begin`
    bool asked = false;
    bool taken = false;     // by the step at hand
    uint32_t taken_as = 0;  // which of `begin` that was
  };

  std::span<const CompiledProgram> programs_;
  std::vector<std::vector<LeadFetch>> leads_;  // by program
  std::vector<SlotState> slots_;
};

}  // namespace tandem
