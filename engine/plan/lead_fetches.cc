#include "engine/plan/lead_fetches.h"

#include <algorithm>

namespace tandem {
namespace {

bool Fills(const Op& op, SlotId slot) { return op.kind == OpKind::kFetch && op.slot == slot; }

const Op* FirstInto(const Program& program, SlotId slot) {
  const auto found = std::find_if(program.ops.begin(), program.ops.end(),
                                  [&](const Op& op) { return Fills(op, slot); });
  return found == program.ops.end() ? nullptr : &*found;
}

// Whether every program of the lane begins with this fetch into its slot.
bool LeadsAll(const Plan& plan, uint32_t lane, const Op& fetch) {
  bool any = false;
  for (const Program& program : plan.programs) {
    if (program.lane != lane) continue;
    const Op* first = FirstInto(program, *fetch.slot);
    if (first == nullptr || first->block != fetch.block || first->units != fetch.units ||
        first->devices != fetch.devices) {
      return false;
    }
    any = true;
  }
  return any;
}

uint32_t LastUse(const Program& program, const ProgramInfo& info, SlotId slot) {
  uint32_t last = 0;
  for (uint32_t i = 0; i < program.ops.size(); ++i) {
    const auto reads = [&](const WeightSource& source) { return source.slot == slot; };
    const bool used = Fills(program.ops[i], slot) ||
                      std::any_of(info.weights[i].begin(), info.weights[i].end(), reads);
    if (used) last = i;
  }
  return last;
}

}  // namespace

std::vector<LeadFetch> LeadFetchesOf(const Plan& plan, const Program& program,
                                     const ProgramInfo& info) {
  std::vector<LeadFetch> leads;
  std::vector<bool> seen(plan.slots.size());
  for (uint32_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    if (op.kind != OpKind::kFetch || !op.slot || seen[*op.slot]) continue;
    seen[*op.slot] = true;
    if (!op.devices[0].IsHost() || op.units.empty() || !LeadsAll(plan, program.lane, op)) continue;
    leads.push_back(LeadFetch{*op.slot, i, LastUse(program, info, *op.slot)});
  }
  return leads;
}

}  // namespace tandem
