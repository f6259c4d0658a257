// An ADD and the NORM of its sum run as one: how often, that each is told a time, and that nothing
// else changes.
#include <gtest/gtest.h>

#include "kernels/forwarding_ops.h"
#include "tests/run/emulated_rig.h"
#include "tests/run/engine_fixture.h"

namespace tandem {
namespace {

using testing::MakeRequest;
using testing::Prompt;
using testing::RunOne;
using testing::TinyModel;
using testing::TinyOptions;

struct Calls {
  int add_norm = 0, add = 0, norm = 0;
};

// Counts calls; asked to, runs an AddNorm as the two that it stands for.
class CountingOps final : public ForwardingOps {
 public:
  CountingOps(std::unique_ptr<Ops> inner, std::shared_ptr<Calls> calls, bool apart)
      : ForwardingOps(std::move(inner)), calls_(std::move(calls)), apart_(apart) {}

  void AddNorm(const float* x, const float* y, const float* w, float eps, uint64_t n,
               uint64_t hidden, float* sum, float* norm) override {
    ++calls_->add_norm;
    if (!apart_) return ForwardingOps::AddNorm(x, y, w, eps, n, hidden, sum, norm);
    Inner().Add(x, y, n * hidden, sum);
    Inner().RmsNorm(sum, w, eps, n, hidden, norm);
  }
  void Add(const float* x, const float* y, uint64_t n, float* out) override {
    ++calls_->add;
    ForwardingOps::Add(x, y, n, out);
  }
  void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
               float* y) override {
    ++calls_->norm;
    ForwardingOps::RmsNorm(x, w, eps, n, hidden, y);
  }

 private:
  std::shared_ptr<Calls> calls_;
  bool apart_;
};

EngineOptions Counted(Plan plan, const std::shared_ptr<const Model>& model,
                      const std::shared_ptr<Calls>& calls, bool apart = false) {
  EngineOptions options = TinyOptions(model, std::move(plan));
  options.hooks.wrap_ops = [calls, apart](std::unique_ptr<Ops> ops) {
    return std::make_unique<CountingOps>(std::move(ops), calls, apart);
  };
  return options;
}

TEST(FusedOpsTest, EveryNormInsideTheModelRunsWithTheAddBeforeIt) {
  const auto model = TinyModel();
  const auto calls = std::make_shared<Calls>();
  const auto engine = Engine::Create(Counted(testing::SinglePlan(model->blocks()), model, calls));
  *calls = Calls{};
  const auto recorder = std::make_shared<testing::Recorder>();
  engine->Submit(MakeRequest(Prompt(9), 1), recorder);
  testing::RunAll(*engine);
  EXPECT_EQ(recorder->reason, FinishReason::kLength) << recorder->error;
  // Two layers: the first norm follows the embedding, and HEAD's is of other rows.
  EXPECT_EQ(calls->add_norm, 3);
  EXPECT_EQ(calls->add, 1);
  EXPECT_EQ(calls->norm, 2);
}

TEST(FusedOpsTest, LogitsAreThoseOfTheTwoApartToTheBit) {
  const auto model = TinyModel();
  const auto calls = std::make_shared<Calls>();
  const auto run = [&](bool apart) {
    return RunOne(Counted(testing::SinglePlan(model->blocks()), model, calls, apart),
                  MakeRequest(Prompt(41), 5, true));
  };
  const auto fused = run(false), apart = run(true);
  EXPECT_EQ(fused->ids, apart->ids);
  EXPECT_TRUE(testing::SameBits(fused->prompt_logits, apart->prompt_logits));
  EXPECT_GT(calls->add_norm, 0);
}

// The time of both is told of each, one after the other.
TEST(FusedOpsTest, BothOpsHaveATimeOfTheirOwn) {
  const auto model = TinyModel();
  const Plan plan = testing::SinglePlan(model->blocks());
  const auto calls = std::make_shared<Calls>();
  const auto engine = Engine::Create(Counted(plan, model, calls));
  testing::StepLog log;
  engine->AddObserver(&log);
  const auto recorder = std::make_shared<testing::Recorder>();
  engine->Submit(MakeRequest(Prompt(31), 1), recorder);
  testing::RunAll(*engine);
  ASSERT_FALSE(log.steps.empty());
  const StepReport& step = log.steps[0];  // the whole prompt
  const Program& program = plan.programs[0];
  int pairs = 0;
  for (size_t i = 0; i + 1 < program.ops.size(); ++i) {
    if (program.ops[i].kind != OpKind::kAdd || program.ops[i + 1].kind != OpKind::kNorm) continue;
    ++pairs;
    EXPECT_GT(step.op_times_raw[i].value, 0) << i;
    EXPECT_GT(step.op_times_raw[i + 1].value, 0) << i;
  }
  EXPECT_EQ(pairs, 4);
}

}  // namespace
}  // namespace tandem
