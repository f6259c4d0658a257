// Mutated plans that the verifier accepts compute what an unsplit model does; with a rule switched
// off they do not, so the test would notice the rule's absence. The long form: mutation_fuzz.
#include "tests/support/mutation.h"

#include <gtest/gtest.h>

#include "engine/plan/text.h"
#include "tests/support/plan_builders.h"

namespace tandem {
namespace {

using testing::MutationCase;
using testing::MutationRun;
using testing::MutationStats;

TEST(MutationTest, BuildersPlansComputeTheModel) {
  MutationRun run(1);
  EXPECT_NO_THROW(run.CheckCases());
  EXPECT_GT(run.n_cases(), 100u);
}

TEST(MutationTest, NoAcceptedMutantIsWrong) {
  MutationRun run(2);
  run.Mutants(20000, [](const MutationCase& c, const Plan& mutant, double error) {
    ADD_FAILURE() << c.name << ": accepted, and wrong by " << error << "\n"
                  << DiffPlans(c.plan, mutant);
  });
  const MutationStats& stats = run.stats();
  EXPECT_EQ(stats.accepted_wrong, 0u);
  // The mutations are worth something: many reach the rules, some get through.
  EXPECT_GT(stats.accepted, 1000u);
  EXPECT_GT(stats.refused, 5000u);
  for (const char* rule : {"locality", "meaning", "coverage", "tokens", "kv", "completeness"}) {
    EXPECT_GT(stats.refused_by_rule.count(rule), 0u) << rule;
  }
}

// The toy tells a wrong plan from a right one: nothing is there that was not put there.
TEST(MutationTest, TheToyNoticesMissingThings) {
  BlockGraph graph = testing::TinyGraph({.layers = 1, .kv_heads = 2});
  testing::ToyModel model(graph, 1);
  auto error = [&](const Plan& plan) {
    return ExecuteToy(model, plan, nullptr, Workload(model, 2)).worst;
  };
  Plan plan = testing::DisaggregatePlan(graph);
  EXPECT_LT(error(plan), 1e-9);
  Plan no_weights = plan;
  no_weights.places.pop_back();
  EXPECT_FALSE(error(no_weights) < 1.0);
  Plan no_kv = plan;
  std::erase_if(no_kv.programs[0].ops, [](const Op& op) { return op.kind == OpKind::kKvMove; });
  EXPECT_FALSE(error(no_kv) < 1.0);
  Plan fewer_heads = testing::SinglePlan(graph);
  fewer_heads.programs[0].ops[2].units = {0, 1};
  EXPECT_FALSE(error(fewer_heads) < 1e-6);
  Plan not_sampled = testing::SinglePlan(graph);
  not_sampled.programs[1].ops.pop_back();
  EXPECT_FALSE(error(not_sampled) < 1.0);
}

class RuleOffTest : public ::testing::TestWithParam<RuleOff> {};

TEST_P(RuleOffTest, WrongPlansGetThrough) {
  MutationRun run(3, VerifyOptions{static_cast<uint32_t>(GetParam())});
  for (int i = 0; i < 200 && run.stats().accepted_wrong == 0; ++i) run.Mutants(1000, nullptr);
  EXPECT_GT(run.stats().accepted_wrong, 0u) << "of " << run.stats().accepted << " accepted";
}

INSTANTIATE_TEST_SUITE_P(EachRule, RuleOffTest,
                         ::testing::Values(RuleOff::kResidence, RuleOff::kSlotContent,
                                           RuleOff::kKvHome, RuleOff::kCoverageMissing,
                                           RuleOff::kCoverageTwice, RuleOff::kMeaning,
                                           RuleOff::kTokens, RuleOff::kMicrobatch));

}  // namespace
}  // namespace tandem
