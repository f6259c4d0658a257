// What plans are measured by: a plugin's price() by the modelled times of one prompt and one decode
// step of one user, `auto` by the time that a whole use takes.
#pragma once

#include "engine/plugin/planner.h"

namespace tandem {

struct StepPrices {
  Nanos prefill;      // a prompt of min(512, max_step_tokens, context) tokens, one row sampled
  Nanos decode;       // one step of one sequence at half the context
  Nanos full_decode;  // one step of every slot at half its part of the context
  uint32_t prompt_tokens = 0;  // of the priced prefill
};

// Of lane 0; the other lanes serve other users meanwhile. REQUIRES: verified.ok().
StepPrices PriceFirstLane(const PlanProblem& problem, const Plan& plan,
                          const VerifyResult& verified);

// `auto`'s own knobs, which say what use it looks for: prompt_tokens, output_tokens, sequences.
std::vector<KnobInfo> AutoKnobs();

// The use that knobs ask for; those of auto are taken out of the list. What does not fit a slot's
// context is shortened in proportion. Throws Error(kInvalidArgument) naming the knob.
AutoUse TakeAutoUse(const PlanLimits& limits, std::vector<Knob>* knobs);

// How many of the sequences a lane serves: they spread over the plan's lanes as evenly as they go,
// the first lanes having one more. The busiest is lane 0.
uint32_t SequencesOfLane(const Plan& plan, uint32_t lane, uint32_t sequences);

struct UsePrice {
  Nanos prefill;       // one step of the busiest lane: min(prompt, max_step_tokens) tokens
  Nanos decode;        // one step of the busiest lane, with all its sequences
  double seconds = 0;  // until all lanes are through
};

// What `auto` minimises. Lanes run side by side; a lane with s sequences prefills one prompt after
// the other and then decodes all s together, half their answers in the cache on average:
//   seconds = max over lanes of  s * prompt_steps * prefill + output_tokens * decode(s)
// Where devices take turns, a step is as long as its ops one after the other, each with the waking
// of the processor's threads, and lanes follow one another too: the sum over lanes.
// REQUIRES: verified.ok().
UsePrice PriceUse(const PlanProblem& problem, const Plan& plan, const VerifyResult& verified,
                  const AutoUse& use);

}  // namespace tandem
