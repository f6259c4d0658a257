#include "engine/plugin/objective.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string>

#include "engine/base/error.h"
#include "engine/plan/pricer.h"

namespace tandem {
namespace {

constexpr uint32_t kPromptTokens = 512;  // of price()
constexpr uint32_t kMostTokens = 1u << 24;
constexpr uint32_t kMostSequences = 1u << 16;

const char* const kPromptKnob = "prompt_tokens";
const char* const kOutputKnob = "output_tokens";
const char* const kSequencesKnob = "sequences";

// What waking a processor's threads for one op costs, nominally. Of plans with the same work the
// one in fewer pieces is through first.
constexpr Nanos kWaking{1000};

Nanos OneAfterTheOther(const Timeline& timeline) {
  Nanos sum;
  for (const OpTiming& op : timeline.ops) {
    if (op.end > op.start) sum += op.end - op.start + kWaking;
  }
  return sum;
}

Nanos PriceProgram(const PlanProblem& problem, const Plan& plan, const VerifyResult& verified,
                   const Program& program, const StepShape& shape) {
  const auto index = static_cast<size_t>(&program - plan.programs.data());
  const Timeline timeline =
      PriceStep(*problem.graph, plan, program, verified.programs[index], shape, *problem.rig)
          .timeline;
  return problem.devices_take_turns ? OneAfterTheOther(timeline) : timeline.length;
}

uint32_t CountOf(const Knob& knob, uint32_t most) {
  uint32_t value = 0;
  const char* end = knob.value.data() + knob.value.size();
  const auto [stop, error] = std::from_chars(knob.value.data(), end, value);
  if (error != std::errc() || stop != end || value == 0 || value > most) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("plugin auto: knob {}={} (want a whole number from 1 to {})", knob.key,
                     knob.value, most));
  }
  return value;
}

}  // namespace

StepPrices PriceFirstLane(const PlanProblem& problem, const Plan& plan,
                          const VerifyResult& verified) {
  StepPrices prices;
  prices.prompt_tokens = std::max(
      1u, std::min({kPromptTokens, problem.limits.max_step_tokens, problem.limits.context}));
  const Program& prefill = plan.program(ProgramKind::kPrefill, 0);
  const Program& decode = plan.program(ProgramKind::kDecode, 0);
  prices.prefill =
      PriceProgram(problem, plan, verified, prefill, PrefillShape(prefill, prices.prompt_tokens));
  prices.decode = PriceProgram(problem, plan, verified, decode,
                               DecodeShape(decode, 1, std::max(1u, problem.limits.context / 2)));
  const uint32_t slots = std::max(1u, problem.limits.max_sequences);
  prices.full_decode =
      slots == 1 ? prices.decode
                 : PriceProgram(problem, plan, verified, decode,
                                DecodeShape(decode, slots,
                                            std::max(1u, problem.limits.context / slots / 2)));
  return prices;
}

std::vector<KnobInfo> AutoKnobs() {
  const AutoUse use;
  const auto knob = [](const char* name, const std::string& value, const char* help) {
    return KnobInfo{name, "int", value, {value}, help};
  };
  return {knob(kPromptKnob, std::to_string(use.prompt_tokens), "Tokens of each prompt."),
          knob(kOutputKnob, std::to_string(use.output_tokens), "Tokens of each answer."),
          knob(kSequencesKnob, "slots", "Sequences at once; as many as there are slots (-np).")};
}

AutoUse TakeAutoUse(const PlanLimits& limits, std::vector<Knob>* knobs) {
  AutoUse use;
  use.sequences = std::max(1u, limits.max_sequences);
  for (const Knob& knob : *knobs) {
    if (knob.key == kPromptKnob) use.prompt_tokens = CountOf(knob, kMostTokens);
    if (knob.key == kOutputKnob) use.output_tokens = CountOf(knob, kMostTokens);
    if (knob.key == kSequencesKnob) use.sequences = CountOf(knob, kMostSequences);
  }
  std::erase_if(*knobs, [](const Knob& knob) {
    return knob.key == kPromptKnob || knob.key == kOutputKnob || knob.key == kSequencesKnob;
  });
  const uint64_t slot = std::max(2u, limits.context / std::max(1u, limits.max_sequences));
  const uint64_t wanted = uint64_t{use.prompt_tokens} + use.output_tokens;
  if (wanted > slot) {
    const uint64_t prompt = std::max<uint64_t>(1, use.prompt_tokens * slot / wanted);
    use.prompt_tokens = static_cast<uint32_t>(std::min(prompt, slot - 1));
    use.output_tokens = static_cast<uint32_t>(slot - use.prompt_tokens);
  }
  return use;
}

uint32_t SequencesOfLane(const Plan& plan, uint32_t lane, uint32_t sequences) {
  return static_cast<uint32_t>((uint64_t{sequences} + plan.n_lanes - 1 - lane) / plan.n_lanes);
}

UsePrice PriceUse(const PlanProblem& problem, const Plan& plan, const VerifyResult& verified,
                  const AutoUse& use) {
  const uint32_t step_tokens =
      std::max(1u, std::min(use.prompt_tokens, problem.limits.max_step_tokens));
  const double prompt_steps = static_cast<double>(use.prompt_tokens) / step_tokens;
  UsePrice all;  // the steps of the lane that takes longest
  double sum = 0;
  for (uint32_t lane = 0; lane < plan.n_lanes; ++lane) {
    const uint32_t sequences = SequencesOfLane(plan, lane, use.sequences);
    if (sequences == 0) continue;
    const Program& prefill = plan.program(ProgramKind::kPrefill, lane);
    const Program& decode = plan.program(ProgramKind::kDecode, lane);
    UsePrice price;
    price.prefill =
        PriceProgram(problem, plan, verified, prefill, PrefillShape(prefill, step_tokens));
    price.decode =
        PriceProgram(problem, plan, verified, decode,
                     DecodeShape(decode, sequences, use.prompt_tokens + use.output_tokens / 2));
    price.seconds = sequences * prompt_steps * price.prefill.Seconds() +
                    use.output_tokens * price.decode.Seconds();
    sum += price.seconds;
    if (price.seconds > all.seconds) all = price;
  }
  if (problem.devices_take_turns) all.seconds = sum;
  return all;
}

}  // namespace tandem
