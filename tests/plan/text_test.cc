// The plan's text form: lossless, strict, and with errors that say where.
#include "engine/plan/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "engine/base/error.h"
#include "tests/support/mutation.h"
#include "tests/support/plan_builders.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(std::string_view text) {
  try {
    ParsePlan(text, "plan.txt");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kPlan);
    return error.what();
  }
  return "";
}

const char* const kHead = "tandem-plan 1\nplugin p 1\ndevices 2 lanes 1 wire f32\n";
std::string WithOp(const std::string& op) {
  return std::string(kHead) + "program decode lane 0 microbatches 1 none\n" + op + "\n";
}

TEST(PlanTextTest, WritesTheDocumentedForm) {
  Op op;
  op.kind = OpKind::kAllReduce;
  op.devices = {DeviceId{0}, DeviceId{1}};
  op.algorithm = Algorithm::kOneShot;
  op.in = {5, 6};
  op.out = {7, 8};
  EXPECT_EQ(FormatOp(op), "d0,d1 all_reduce m0 algorithm=one_shot <v5 <v6 >v7 >v8");
  Op fetch;
  fetch.kind = OpKind::kFetch;
  fetch.devices = {kHost, DeviceId{0}};
  fetch.block = BlockId{19};
  fetch.units = {0, 3};
  fetch.slot = 1;
  EXPECT_EQ(FormatOp(fetch), "host->d0 fetch b19[0:3) s1");
  Op transfer;
  transfer.kind = OpKind::kTransfer;
  transfer.devices = {DeviceId{0}, DeviceId{1}};
  transfer.microbatch = 1;
  transfer.path = PathKind::kP2p;
  transfer.in = {36};
  transfer.out = {37};
  EXPECT_EQ(FormatOp(transfer), "d0->d1 transfer m1 path=p2p <v36 >v37");
}

TEST(PlanTextTest, ReadsBackEveryBuildersPlan) {
  for (const testing::MutationCase& c : testing::MutationCases()) {
    std::string text = FormatPlan(c.plan);
    Plan read = ParsePlan(text, "t");
    EXPECT_EQ(read, c.plan) << c.name;
    EXPECT_EQ(FormatPlan(read), text) << c.name;
  }
}

// Mutants hold combinations that no plan has: operands on a fetch, slots on a run, reversed units.
TEST(PlanTextTest, LosesNothingOfAnyPlan) {
  std::mt19937_64 random(3);
  std::vector<testing::MutationCase> cases = testing::MutationCases();
  for (int i = 0; i < 500; ++i) {
    const testing::MutationCase& c = cases[random() % cases.size()];
    Plan plan = testing::Mutate(c.plan, c.model->graph(), random);
    bool nameable = true;
    uint32_t call = 0;
    for (Program& program : plan.programs) {
      nameable = nameable && program.kind <= ProgramKind::kReservedVerify &&
                 program.microbatch_kind <= MicrobatchKind::kBySequence;
      for (Op& op : program.ops) {
        op.plugin_call = ++call;
        nameable = nameable && op.kind <= OpKind::kReservedKvShard && op.path <= PathKind::kNccl &&
                   op.algorithm <= Algorithm::kTwoShot &&
                   (!op.queue || *op.queue <= QueueKind::kComm);
        for (DeviceId d : op.devices) nameable = nameable && d.value >= -1;
      }
    }
    if (!nameable) continue;
    EXPECT_EQ(ParsePlan(FormatPlan(plan, PlanText::kWithCalls), "t"), plan);
  }
}

TEST(PlanTextTest, KeepsOddWordsInQuotes) {
  Plan plan;
  plan.plugin = "a b#c";
  plan.plugin_version = "";
  plan.knobs = {{"k", "say \"hi\"\n\\"}, {"utf8", "\xc3\xa9"}};
  EXPECT_EQ(ParsePlan(FormatPlan(plan), "t"), plan);
}

TEST(PlanTextTest, SkipsCommentsAndBlankLines) {
  Plan plan = ParsePlan("# by hand\n\ntandem-plan 1 # format\r\ndevices 1 lanes 1 wire q8\n", "t");
  EXPECT_EQ(plan.wire, WireType::kQ8);
}

TEST(PlanTextTest, CallNumbersAreWrittenOnRequestOnly) {
  Plan plan = ParsePlan(WithOp("d0 sample m0 call=7 <v0"), "t");
  EXPECT_EQ(plan.programs[0].ops[0].plugin_call, 7u);
  EXPECT_THAT(FormatPlan(plan, PlanText::kWithCalls), HasSubstr("call=7"));
  EXPECT_THAT(FormatPlan(plan), Not(HasSubstr("call=")));
}

TEST(PlanTextTest, ErrorsSayWhereAndWhatWasWanted) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("want 'tandem-plan 1'"));
  EXPECT_THAT(ErrorOf("{\"plan\": 1}"), HasSubstr("plan.txt:1"));
  EXPECT_THAT(ErrorOf("tandem-plan 2\n"), HasSubstr("plan format '2'"));
  EXPECT_THAT(ErrorOf("tandem-plan 1\n"), HasSubstr("devices N"));
  EXPECT_THAT(ErrorOf("tandem-plan 1\ndevices 1 lanes 1 wire f16\n"),
              HasSubstr("plan.txt:2: unknown wire type 'f16'"));
  EXPECT_THAT(ErrorOf("tandem-plan 1\nplaces b0[0:1) d0\n"), HasSubstr("did you mean 'place'"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "slot s1 d0 4\n"), HasSubstr("slot s1 where s0"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "place b0 d0\n"), HasSubstr("plan.txt:4"));
  EXPECT_THAT(ErrorOf(WithOp("d0 rum b0[0:1) m0 >v0")), HasSubstr("did you mean 'run'"));
  EXPECT_THAT(ErrorOf(WithOp("d0 run m0 >v0")), HasSubstr("run needs a block and its units"));
  EXPECT_THAT(ErrorOf(WithOp("d0 run b0[0:1 m0 >v0")), HasSubstr("b17[0:4)"));
  EXPECT_THAT(ErrorOf(WithOp("d0 norm m0 <v0 >v1")), HasSubstr("norm needs a block"));
  EXPECT_THAT(ErrorOf(WithOp("dx run b0[0:1) m0 >v0")), HasSubstr("'dx'"));
  EXPECT_THAT(ErrorOf(WithOp("d99999999999 run b0[0:1) m0 >v0")), HasSubstr("plan.txt:5"));
  EXPECT_THAT(ErrorOf(WithOp("d0 run b0[0:1) m0 m1 >v0")), HasSubstr("'m1' says again"));
  EXPECT_THAT(ErrorOf(WithOp("d0 run b0[0:1) m-1 >v0")), HasSubstr("'m-1'"));
  EXPECT_THAT(ErrorOf(WithOp("d0 run b0[0:1) m0 >v0 <v1")), HasSubstr("comes after a result"));
  EXPECT_THAT(ErrorOf(WithOp("d0 sample m0 speed=9 <v0")), HasSubstr("unknown attribute 'speed'"));
  EXPECT_THAT(ErrorOf(WithOp("d0 sample m0 \"x <v0")), HasSubstr("not closed"));
  EXPECT_THAT(ErrorOf("d0 run b0[0:1) m0 >v0\n"), HasSubstr("is this a plan?"));
}

// No cut or flipped byte crashes the reader; it reads a plan or says what is wrong.
TEST(PlanTextTest, SurvivesDamagedText) {
  BlockGraph graph = testing::TinyGraph({});
  const std::string text = FormatPlan(testing::WeightGatherPlan(graph, 2));
  std::mt19937_64 random(9);
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = text.substr(0, i % 4 == 0 ? random() % text.size() : text.size());
    for (uint64_t k = random() % 4; k > 0 && !damaged.empty(); --k) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    refused += ErrorOf(damaged).empty() ? 0 : 1;
  }
  EXPECT_GT(refused, 500);
}

TEST(DiffPlansTest, ShowsChangedLinesInTheirPlace) {
  BlockGraph graph = testing::TinyGraph({});
  Plan a = testing::SinglePlan(graph), b = a;
  EXPECT_EQ(DiffPlans(a, b), "");
  b.programs[1].ops[1].path = PathKind::kP2p;
  b.programs[1].ops.pop_back();
  std::string diff = DiffPlans(a, b);
  EXPECT_THAT(diff, HasSubstr("\n-d0 norm b1 m0 <v0 >v1\n+d0 norm b1 m0 path=p2p <v0 >v1\n"));
  EXPECT_THAT(diff, HasSubstr("\n-d0 sample m0 <v14\n"));
  EXPECT_THAT(diff, Not(HasSubstr("plugin")));
  EXPECT_EQ(std::count(diff.begin(), diff.end(), '@'), 8);  // two places
}

}  // namespace
}  // namespace tandem
