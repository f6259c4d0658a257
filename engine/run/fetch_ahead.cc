#include "engine/run/fetch_ahead.h"

#include <algorithm>

namespace tandem {

FetchAhead::FetchAhead(const Plan& plan, std::span<const CompiledProgram> programs,
                       const StepOrder& order)
    : programs_(programs), slots_(plan.slots.size()) {
  for (size_t p = 0; p < programs.size(); ++p) {
    leads_.push_back(LeadFetchesOf(plan, *programs[p].program, *programs[p].info));
    for (const LeadFetch& lead : leads_.back()) {
      for (auto& begin : slots_[lead.slot].begin) {
        if (begin == nullptr) begin = order.QueueOf(*programs[p].ops[lead.op].op, 1)->MakeEvent();
      }
    }
  }
}

bool FetchAhead::Take(SlotId slot) {
  SlotState& state = slots_[slot];
  if (!state.asked) return false;
  state.asked = false;
  state.taken = true;
  state.taken_as = state.latest;
  return true;
}

void FetchAhead::Ask(size_t program, StepOrder& order, FunctionRef<void(const CompiledOp&)> copy) {
  for (const LeadFetch& lead : leads_[program]) {
    SlotState& state = slots_[lead.slot];
    if (state.asked) continue;
    const CompiledOp& op = programs_[program].ops[lead.op];
    DeviceQueue& queue = *order.QueueOf(*op.op, 1);
    order.PutBehind(queue, lead.last_use);
    state.latest = 1 - state.latest;
    queue.Mark(*state.begin[state.latest]);
    copy(op);
    state.asked = true;
  }
}

void FetchAhead::ReadTimes(size_t program, const StepOrder& order, OverlapTrace& trace) {
  for (const LeadFetch& lead : leads_[program]) {
    SlotState& state = slots_[lead.slot];
    if (!state.taken) continue;
    state.taken = false;
    OpSpan& times = trace.ops[lead.op];
    const auto device = static_cast<uint32_t>(programs_[program].ops[lead.op].op->devices[1].value);
    times.begin = std::min(times.begin, order.TimeOf(device, *state.begin[state.taken_as]));
  }
}

void FetchAhead::Forget() {
  for (SlotState& state : slots_) state.asked = state.taken = false;
}

}  // namespace tandem
