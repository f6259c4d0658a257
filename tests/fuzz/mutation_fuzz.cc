// Mutates accepted plans, executes what the verifier still accepts on a toy model, and compares
// with an unsplit one. Prints counts; exits with 1 when a mutant is accepted and wrong.
//
//   mutation_fuzz [COUNT [SEED [RULES_OFF]]]      defaults 1000000, 1, 0
//
// RULES_OFF is a sum of RuleOff values (engine/plan/verifier_internal.h): with a rule off the fuzz
// should find wrong plans, which shows that it would notice the rule's absence.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <string>

#include "engine/plan/text.h"
#include "tests/support/mutation.h"

namespace tandem::testing {
namespace {

constexpr uint64_t kPlansShown = 3;

int Run(uint64_t count, uint64_t seed, uint32_t rules_off) {
  auto begin = std::chrono::steady_clock::now();
  MutationRun run(seed, VerifyOptions{rules_off});
  run.CheckCases();
  uint64_t shown = 0;
  run.Mutants(count, [&](const MutationCase& c, const Plan& mutant, double error) {
    if (++shown > kPlansShown) return;
    fmt::print("accepted and wrong (error {}): {}\n{}\n", error, c.name, DiffPlans(c.plan, mutant));
  });
  const MutationStats& s = run.stats();
  std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  fmt::print("cases               {}\n", run.n_cases());
  fmt::print("mutants             {}\n", s.mutants);
  fmt::print("unchanged           {}\n", s.unchanged);
  fmt::print("accepted            {}\n", s.accepted);
  fmt::print("accepted and wrong  {}\n", s.accepted_wrong);
  fmt::print("refused             {}\n", s.refused);
  for (const auto& [rule, n] : s.refused_by_rule) fmt::print("  {:<17} {}\n", rule, n);
  fmt::print("refused, tried      {}\n", s.refused_tried);
  fmt::print("refused, harmless   {} of those tried ({:.1f} %)\n", s.refused_harmless,
             s.refused_tried == 0 ? 0.0 : 100.0 * s.refused_harmless / s.refused_tried);
  fmt::print("seconds             {:.1f}\n", seconds.count());
  return s.accepted_wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace tandem::testing

int main(int argc, char** argv) {
  try {
    uint64_t count = argc > 1 ? std::stoull(argv[1]) : 1'000'000;
    uint64_t seed = argc > 2 ? std::stoull(argv[2]) : 1;
    auto off = static_cast<uint32_t>(argc > 3 ? std::stoul(argv[3]) : 0);
    return tandem::testing::Run(count, seed, off);
  } catch (const std::exception& error) {
    fmt::print(stderr, "mutation_fuzz: {}\n", error.what());
    return 2;
  }
}
