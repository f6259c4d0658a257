// What `auto` and a plugin's price() measure a plan by: the modelled times of one prompt and one
// decode step of one user.
#pragma once

#include "engine/plugin/planner.h"

namespace tandem {

struct StepPrices {
  Nanos prefill;  // a prompt of min(512, max_step_tokens, context) tokens, one row sampled
  Nanos decode;   // one step of one sequence at half the context
  uint32_t prompt_tokens = 0;  // of the priced prefill
};

// Of lane 0; the other lanes serve other users meanwhile. REQUIRES: verified.ok().
StepPrices PriceFirstLane(const PlanProblem& problem, const Plan& plan,
                          const VerifyResult& verified);

// What `auto` minimises: seconds of a prompt of 512 tokens (in as many steps as it takes) and 128
// decode steps.
double AutoSeconds(const StepPrices& prices);

}  // namespace tandem
