// The FETCHes that may begin before their step does. What a slot holds when a program starts is
// unknown by the language, so an executor may put there what it likes: where every program of a
// lane first fills a slot with the same weights of the host's, whichever comes next wants them, and
// they can cross while the tail of the step before still computes. Plans, and what they mean, stay
// as they are.
//
//   for (const LeadFetch& lead : LeadFetchesOf(plan, program, info)) ...
#pragma once

#include <cstdint>
#include <vector>

#include "engine/plan/plan.h"
#include "engine/plan/verifier.h"

namespace tandem {

struct LeadFetch {
  SlotId slot = 0;
  uint32_t op = 0;        // index in its program
  uint32_t last_use = 0;  // likewise: the last op that reads or fills the slot, after which the
                          // next step's may begin
};

// Of one of the plan's programs, in list order.
std::vector<LeadFetch> LeadFetchesOf(const Plan& plan, const Program& program,
                                     const ProgramInfo& info);

}  // namespace tandem
