#include "engine/plugin/objective.h"

#include <algorithm>

#include "engine/base/check.h"
#include "engine/plan/pricer.h"

namespace tandem {
namespace {

constexpr uint32_t kPromptTokens = 512;
constexpr uint32_t kDecodeSteps = 128;

Nanos PriceProgram(const PlanProblem& problem, const Plan& plan, const VerifyResult& verified,
                   ProgramKind kind, uint32_t prompt_tokens) {
  for (size_t p = 0; p < plan.programs.size(); ++p) {
    const Program& program = plan.programs[p];
    if (program.kind != kind || program.lane != 0) continue;
    const StepShape shape = kind == ProgramKind::kPrefill
                                ? PrefillShape(program, prompt_tokens)
                                : DecodeShape(program, 1, std::max(1u, problem.limits.context / 2));
    return PriceStep(*problem.graph, plan, program, verified.programs[p], shape, *problem.rig)
        .timeline.length;
  }
  Check(false, "a verified plan has a prefill and a decode program in lane 0");
  return {};
}

}  // namespace

StepPrices PriceFirstLane(const PlanProblem& problem, const Plan& plan,
                          const VerifyResult& verified) {
  StepPrices prices;
  prices.prompt_tokens = std::max(
      1u, std::min({kPromptTokens, problem.limits.max_step_tokens, problem.limits.context}));
  prices.prefill =
      PriceProgram(problem, plan, verified, ProgramKind::kPrefill, prices.prompt_tokens);
  prices.decode = PriceProgram(problem, plan, verified, ProgramKind::kDecode, 0);
  return prices;
}

double AutoSeconds(const StepPrices& prices) {
  const double steps = static_cast<double>(kPromptTokens) / prices.prompt_tokens;
  return prices.prefill.Seconds() * steps + prices.decode.Seconds() * kDecodeSteps;
}

}  // namespace tandem
