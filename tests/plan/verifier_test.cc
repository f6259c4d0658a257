// The verifier, rule by rule: what it accepts, what it refuses, and how it says so. That nothing it
// accepts is wrong is the mutation test's business.
#include "engine/plan/verifier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/plan/text.h"
#include "tests/support/plan_builders.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;
using testing::PlanWriter;
using testing::TestRig;
using testing::TinyGraph;
using Value = PlanWriter::Value;

class VerifierTest : public ::testing::Test {
 protected:
  VerifyResult Verify(const Plan& plan) { return VerifyPlan(plan, graph_, rig_, limits_); }
  // "" when accepted, else "[rule] message".
  std::string RefusalOf(const Plan& plan) {
    VerifyResult result = Verify(plan);
    if (result.ok()) return "";
    EXPECT_THAT(result.refusal->message, HasSubstr("[" + result.refusal->rule + "]"));
    return result.refusal->message;
  }
  // The index of the n-th op of a kind in a program.
  static size_t Nth(const Program& program, OpKind kind, size_t n = 0) {
    for (size_t i = 0; i < program.ops.size(); ++i) {
      if (program.ops[i].kind == kind && n-- == 0) return i;
    }
    ADD_FAILURE() << "no such op";
    return 0;
  }
  static Op& NthOp(Plan& plan, size_t program, OpKind kind, size_t n = 0) {
    return plan.programs[program].ops[Nth(plan.programs[program], kind, n)];
  }

  BlockGraph graph_ = TinyGraph({.layers = 2, .kv_heads = 3});
  Rig rig_ = TestRig(4);
  PlanLimits limits_;
};

TEST_F(VerifierTest, AcceptsEveryBuilder) {
  for (uint32_t n = 1; n <= 4; ++n) {
    std::vector<double> shares(n, 1.0);
    shares[0] = 2;
    EXPECT_EQ(RefusalOf(testing::LayerSplitPlan(graph_, n, 3)), "");
    EXPECT_EQ(RefusalOf(testing::TensorSplitPlan(graph_, shares)), "");
    EXPECT_EQ(RefusalOf(testing::ReplicasPlan(graph_, n)), "");
    EXPECT_EQ(RefusalOf(testing::WeightGatherPlan(graph_, n)), "");
    EXPECT_EQ(RefusalOf(testing::ReplicatedAttentionPlan(graph_, n, 2)), "");
    if (n == 1) continue;
    EXPECT_EQ(RefusalOf(testing::SequenceParallelPlan(graph_, shares)), "");
  }
  EXPECT_EQ(RefusalOf(testing::SinglePlan(graph_)), "");
  EXPECT_EQ(RefusalOf(testing::OffloadPlan(graph_)), "");
  EXPECT_EQ(RefusalOf(testing::DisaggregatePlan(graph_)), "");
}

// The default model's shape, as the engine cuts it: 3 KV heads, 48 units of FFN, 768 of vocabulary.
TEST_F(VerifierTest, AcceptsARealShape) {
  ModelConfig config;
  config.n_layers = 30;
  config.hidden = 576;
  config.n_heads = 9;
  config.n_kv_heads = 3;
  config.head_dim = config.rope_dim = 64;
  config.ffn = 1536;
  config.vocab = 49152;
  config.context = 8192;
  config.tied_embedding = true;
  graph_ = BuildBlockGraph(config, std::vector<BlockTypes>(31));
  EXPECT_EQ(RefusalOf(testing::LayerSplitPlan(graph_, 2, 4)), "");
  EXPECT_EQ(RefusalOf(testing::TensorSplitPlan(graph_, {2, 1})), "");
  EXPECT_EQ(RefusalOf(testing::SequenceParallelPlan(graph_, {1, 1, 1})), "");
  EXPECT_EQ(RefusalOf(testing::OffloadPlan(graph_)), "");
  EXPECT_EQ(RefusalOf(testing::WeightGatherPlan(graph_, 4)), "");
  EXPECT_EQ(RefusalOf(testing::DisaggregatePlan(graph_)), "");
  VerifyResult single = Verify(testing::SinglePlan(graph_));
  ASSERT_TRUE(single.ok());
  // Every parameter once in f32 (the tied table too), norms included.
  uint64_t layer = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536 + 2 * 576;
  EXPECT_EQ(single.memory.rows[0].weights.value, 4 * (49152ull * 576 + 30 * layer + 576));
}

TEST_F(VerifierTest, RefusalNamesOpRuleSurroundingsAndCall) {
  Plan plan = testing::TensorSplitPlan(graph_, {1, 1});
  size_t i = Nth(plan.programs[1], OpKind::kAllReduce, 1);
  plan.programs[1].ops[i].plugin_call = 23;
  for (Op& op : plan.programs[1].ops) {
    if (op.kind == OpKind::kRun && op.block == BlockId{1}) op.units = {0, 1};
  }
  for (DeviceId d : {DeviceId{0}, DeviceId{1}}) plan.places.push_back({BlockId{1}, {0, 3}, d});
  VerifyResult result = Verify(plan);
  ASSERT_FALSE(result.ok());
  const Refusal& refusal = *result.refusal;
  EXPECT_EQ(refusal.rule, "coverage");
  EXPECT_EQ(refusal.program, 1u);
  EXPECT_EQ(refusal.op, i);
  EXPECT_TRUE(refusal.at_op);
  EXPECT_THAT(refusal.message,
              HasSubstr("plan refused [coverage] at op " + std::to_string(i) +
                        " of decode (lane 0), made by plugin call 23: all_reduce counts unit 0 "
                        "twice: it is in v"));
  EXPECT_THAT(refusal.message, HasSubstr("\n>"));
  EXPECT_THAT(refusal.message, HasSubstr(FormatOp(plan.programs[1].ops[i - 5])));
  EXPECT_THAT(refusal.message, HasSubstr(FormatOp(plan.programs[1].ops[i + 5])));
  EXPECT_THAT(refusal.message, Not(HasSubstr(FormatOp(plan.programs[1].ops[i + 6]))));
  EXPECT_TRUE(result.programs.empty());
}

TEST_F(VerifierTest, OrFailThrowsTheMessage) {
  Plan plan = testing::SinglePlan(graph_);
  plan.programs[0].ops.pop_back();
  try {
    VerifyOrFail(plan, graph_, rig_, limits_);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kPlan);
    EXPECT_THAT(error.what(), HasSubstr("[completeness]"));
  }
}

// ---- structure

TEST_F(VerifierTest, RefusesImpossibleCountsAndPrograms) {
  const Plan plan = testing::LayerSplitPlan(graph_, 2, 2);
  auto refusal = [&](auto edit) {
    Plan other = plan;
    edit(other);
    return RefusalOf(other);
  };
  EXPECT_THAT(refusal([](Plan& p) { p.n_devices = 0; }), HasSubstr("[structure]"));
  EXPECT_THAT(refusal([](Plan& p) { p.n_devices = 9; }), HasSubstr("[rig]"));
  EXPECT_THAT(refusal([](Plan& p) { p.n_lanes = 0; }), HasSubstr("lanes"));
  EXPECT_THAT(refusal([](Plan& p) { p.n_lanes = 2; }), HasSubstr("lane 1 has no prefill"));
  EXPECT_THAT(refusal([](Plan& p) { p.programs.pop_back(); }), HasSubstr("no decode program"));
  EXPECT_THAT(refusal([](Plan& p) { p.programs[1].kind = ProgramKind::kPrefill; }),
              HasSubstr("two prefill programs"));
  EXPECT_THAT(refusal([](Plan& p) { p.programs[1].kind = ProgramKind::kReservedDraft; }),
              HasSubstr("draft"));
  EXPECT_THAT(refusal([](Plan& p) { p.programs[1].lane = 7; }), HasSubstr("lane 7"));
  EXPECT_THAT(refusal([](Plan& p) { p.programs[1].microbatches = 0; }),
              HasSubstr("0 microbatches"));
  EXPECT_THAT(refusal([](Plan& p) { p.programs[1].microbatch_kind = MicrobatchKind::kNone; }),
              HasSubstr("does not say of what kind"));
  EXPECT_THAT(refusal([](Plan& p) { p.places[0].units.end = 99; }), HasSubstr("place b0[0:99)"));
  EXPECT_THAT(refusal([](Plan& p) { p.places[0].device = DeviceId{2}; }), HasSubstr("d2"));
  EXPECT_THAT(refusal([](Plan& p) { p.slots.push_back({kHost, Bytes{4}}); }), HasSubstr("slot s0"));
  EXPECT_THAT(refusal([](Plan& p) { p.slots.push_back({DeviceId{0}, Bytes{UINT64_MAX}}); }),
              HasSubstr("slot s0 has 18446744073709551615 bytes"));
}

TEST_F(VerifierTest, RefusesMalformedOps) {
  const Plan plan = testing::LayerSplitPlan(graph_, 2, 2);
  auto refusal = [&](auto edit) {
    Plan other = plan;
    edit(other);
    return RefusalOf(other);
  };
  auto op = [&](OpKind kind, auto edit) {
    return refusal([&](Plan& p) { edit(NthOp(p, 0, kind)); });
  };
  EXPECT_THAT(op(OpKind::kRun, [](Op& o) { o.kind = OpKind::kReservedAllToAll; }),
              HasSubstr("all_to_all is not an op"));
  EXPECT_THAT(op(OpKind::kRun, [](Op& o) { o.devices = {DeviceId{9}}; }),
              HasSubstr("d9 is no device of the plan, which has d0 to d1"));
  EXPECT_THAT(op(OpKind::kRun, [](Op& o) { o.devices = {kHost}; }), HasSubstr("host"));
  EXPECT_THAT(op(OpKind::kRun, [](Op& o) { o.devices.clear(); }), HasSubstr("0 devices"));
  EXPECT_THAT(op(OpKind::kTransfer, [](Op& o) { o.devices[1] = o.devices[0]; }),
              HasSubstr("twice"));
  EXPECT_THAT(op(OpKind::kRun, [](Op& o) { o.microbatch = 2; }), HasSubstr("m2 does not exist"));
  EXPECT_THAT(op(OpKind::kNorm, [](Op& o) { o.block = BlockId{77}; }), HasSubstr("b77"));
  EXPECT_THAT(op(OpKind::kRun, [](Op& o) { o.units = {3, 2}; }), HasSubstr("[3:2)"));
  EXPECT_THAT(op(OpKind::kNorm, [](Op& o) { o.in[0] = 500; }), HasSubstr("v500"));
  EXPECT_THAT(op(OpKind::kNorm, [](Op& o) { o.in.push_back(0); }), HasSubstr("takes 2 values"));
  EXPECT_THAT(op(OpKind::kNorm, [](Op& o) { o.out[0] = 9; }), HasSubstr("v1 was expected"));
  EXPECT_THAT(op(OpKind::kRun, [](Op& o) { o.path = static_cast<PathKind>(60); }),
              HasSubstr("unknown path"));
  // A value of one microbatch in an op of another.
  EXPECT_THAT(op(OpKind::kAdd, [](Op& o) { o.microbatch = 1; }), HasSubstr("another microbatch"));
}

TEST_F(VerifierTest, CollectivesOverMoreThanTwoNameTheirAlgorithm) {
  EXPECT_EQ(RefusalOf(testing::TensorSplitPlan(graph_, {1, 1}, Algorithm::kNone)), "");
  EXPECT_THAT(RefusalOf(testing::TensorSplitPlan(graph_, {1, 1, 1}, Algorithm::kNone)),
              HasSubstr("names its algorithm"));
}

TEST_F(VerifierTest, LanesShareNoComputeQueueAndNoSlot) {
  PlanWriter w(graph_, "two_lanes_one_device", 2, 2);
  w.PlaceAll(DeviceId{0});
  for (uint32_t lane : {0, 1}) {
    for (ProgramKind kind : {ProgramKind::kPrefill, ProgramKind::kDecode}) {
      w.Begin(kind, lane);
      w.Chain(0);
    }
  }
  EXPECT_THAT(RefusalOf(w.Take()), HasSubstr("d0 computes for lane 0 and for lane 1"));

  Plan plan = testing::ReplicasPlan(graph_, 2);
  plan.slots.push_back({DeviceId{0}, Bytes{10000}});
  Op fetch;
  fetch.kind = OpKind::kFetch;
  fetch.devices = {DeviceId{1}, DeviceId{0}};
  fetch.units = {0, 1};
  fetch.slot = 0;
  plan.programs[0].ops.insert(plan.programs[0].ops.begin(), fetch);
  EXPECT_EQ(RefusalOf(plan), "");
  plan.programs[3].ops.insert(plan.programs[3].ops.begin(), fetch);
  EXPECT_THAT(RefusalOf(plan), HasSubstr("slot s0 is filled by lane 0 and by lane 1"));
}

// ---- locality

TEST_F(VerifierTest, RefusesValuesAndWeightsFromElsewhere) {
  Plan plan = testing::LayerSplitPlan(graph_, 2, 1);
  NthOp(plan, 1, OpKind::kNorm, 4).devices = {DeviceId{0}};
  EXPECT_THAT(RefusalOf(plan), HasSubstr("[locality]"));
  plan = testing::LayerSplitPlan(graph_, 2, 1);
  plan.places.back().units.end -= 1;
  EXPECT_THAT(RefusalOf(plan), HasSubstr("run needs unit 3 of b5 on d1"));
}

TEST_F(VerifierTest, SeveralPlacesCoverARunTogether) {
  Plan plan = testing::SinglePlan(graph_);
  plan.places[1].units = {0, 2};
  plan.places.push_back({BlockId{1}, {1, 3}, DeviceId{0}});
  VerifyResult result = Verify(plan);
  ASSERT_TRUE(result.ok());
  const auto& sources = result.programs[0].weights[2];  // RUN of b1
  ASSERT_EQ(sources.size(), 1u);
  EXPECT_EQ(sources[0].units, (UnitRange{0, 3}));
  EXPECT_FALSE(sources[0].slot.has_value());
}

TEST_F(VerifierTest, SlotsHoldWhatTheirLastFetchBrought) {
  const Plan plan = testing::OffloadPlan(graph_);
  ASSERT_EQ(RefusalOf(plan), "");
  Plan other = plan;  // b2 goes where b1 still lies unread
  NthOp(other, 1, OpKind::kFetch, 2).slot = 1;
  EXPECT_THAT(RefusalOf(other), HasSubstr("run needs unit 0 of b1 on d0"));
  other = plan;
  other.slots[1].bytes.value -= 1;
  EXPECT_THAT(RefusalOf(other), HasSubstr("slot s1 has"));
  other = plan;
  other.programs[1].ops.erase(other.programs[1].ops.begin());  // prefill's fetch does not last
  EXPECT_THAT(RefusalOf(other), HasSubstr("run needs unit 0 of b0"));
  other = plan;
  other.places[3].device = DeviceId{0};
  EXPECT_THAT(RefusalOf(other), HasSubstr("slots are not fetched from"));
  other = plan;
  NthOp(other, 0, OpKind::kFetch).microbatch = 1;
  EXPECT_THAT(RefusalOf(other), HasSubstr("fetch belongs to no microbatch"));
}

TEST_F(VerifierTest, SaysWhereEachRunReadsItsWeights) {
  VerifyResult result = Verify(testing::WeightGatherPlan(graph_, 2));
  ASSERT_TRUE(result.ok());
  Plan plan = testing::WeightGatherPlan(graph_, 2);
  size_t run = Nth(plan.programs[0], OpKind::kRun, 2);  // b1 on d0
  const auto& sources = result.programs[0].weights[run];
  ASSERT_EQ(sources.size(), 2u);
  EXPECT_EQ(sources[0].units, (UnitRange{0, 1}));
  EXPECT_FALSE(sources[0].slot.has_value());
  EXPECT_EQ(sources[1].units, (UnitRange{1, 3}));
  ASSERT_TRUE(sources[1].slot.has_value());
  const Op& fetch = plan.programs[0].ops[sources[1].fetch_op];
  EXPECT_EQ(fetch.kind, OpKind::kFetch);
  EXPECT_EQ(fetch.slot, sources[1].slot);
  EXPECT_EQ(fetch.block, BlockId{1});
}

// ---- meaning and coverage

TEST_F(VerifierTest, RefusesSkippedAndRepeatedBlocks) {
  PlanWriter w(graph_, "skips", 1);
  w.PlaceAll(DeviceId{0});
  w.Begin(ProgramKind::kPrefill);
  w.Whole(2, w.Embed(w.All(0), 0));
  EXPECT_THAT(RefusalOf([&] {
                w.Begin(ProgramKind::kDecode);
                return w.Take();
              }()),
              HasSubstr("norm of b2 takes X after b1, got v0 (X after b0, m0, on d0)"));

  Plan plan = testing::SinglePlan(graph_);
  NthOp(plan, 0, OpKind::kAdd, 1).in[0] = NthOp(plan, 0, OpKind::kAdd, 0).in[0];
  EXPECT_THAT(RefusalOf(plan), HasSubstr("add of b2 takes X after b1"));
  plan = testing::SinglePlan(graph_);
  NthOp(plan, 0, OpKind::kAdd, 1).in[1] = NthOp(plan, 0, OpKind::kAdd, 0).in[1];
  EXPECT_THAT(RefusalOf(plan), HasSubstr("add of b2 takes Y of b2"));
  plan = testing::SinglePlan(graph_);
  NthOp(plan, 0, OpKind::kSample).in[0] -= 1;
  EXPECT_THAT(RefusalOf(plan), HasSubstr("sample takes logits"));
}

TEST_F(VerifierTest, RefusesPartialsOutsideReduces) {
  Plan plan = testing::SinglePlan(graph_);
  NthOp(plan, 0, OpKind::kRun, 1).units = {0, 2};
  EXPECT_THAT(RefusalOf(plan), HasSubstr("add takes every unit, got the partial"));
  plan = testing::SinglePlan(graph_);
  NthOp(plan, 0, OpKind::kRun, 0).units = {1, 4};
  EXPECT_THAT(RefusalOf(plan), HasSubstr("norm takes every unit, got the partial"));
  plan = testing::SinglePlan(graph_);
  NthOp(plan, 1, OpKind::kRun, 5).units = {0, 3};
  EXPECT_THAT(RefusalOf(plan), HasSubstr("sample takes the whole vocabulary"));
}

TEST_F(VerifierTest, ReduceLacksAUnit) {
  Plan plan = testing::TensorSplitPlan(graph_, {1, 1});
  NthOp(plan, 0, OpKind::kRun, 3).units.end -= 1;  // b1 on d1
  EXPECT_THAT(RefusalOf(plan), HasSubstr("all_reduce lacks unit 2 of [0:3)"));
}

TEST_F(VerifierTest, ADeviceMayHaveNothingOfABlock) {
  graph_ = TinyGraph({.layers = 1, .kv_heads = 1});
  EXPECT_EQ(RefusalOf(testing::TensorSplitPlan(graph_, {1, 1, 1, 1})), "");
  EXPECT_EQ(RefusalOf(testing::TensorSplitPlan(graph_, {1, 0})), "");
  EXPECT_EQ(RefusalOf(testing::SequenceParallelPlan(graph_, {0, 1})), "");
}

TEST_F(VerifierTest, LogitsAreGatheredNotSummed) {
  Plan plan = testing::TensorSplitPlan(graph_, {1, 1});
  NthOp(plan, 0, OpKind::kAllGather).kind = OpKind::kAllReduce;
  EXPECT_THAT(RefusalOf(plan), HasSubstr("logits are joined by all_gather"));
}

// ---- tokens

TEST_F(VerifierTest, TokenShardsPassNormAndAddAlone) {
  Plan plan = testing::SequenceParallelPlan(graph_, {1, 1});
  Op& gather = NthOp(plan, 0, OpKind::kAllGather);
  Op& run = NthOp(plan, 0, OpKind::kRun, 2);
  run.in[0] = gather.in[0];
  EXPECT_THAT(RefusalOf(plan), HasSubstr("run takes whole tokens"));

  plan = testing::SequenceParallelPlan(graph_, {1, 1});
  Op& swapped = NthOp(plan, 0, OpKind::kAllGather);
  std::swap(swapped.in[0], swapped.in[1]);
  std::swap(swapped.devices[0], swapped.devices[1]);
  EXPECT_THAT(RefusalOf(plan), HasSubstr("takes token shard 0 of 2 from its rank 0"));
}

TEST_F(VerifierTest, HeadsNormTakesWholeTokens) {
  PlanWriter w(graph_, "shards_to_the_end", 2);
  w.PlaceAll(DeviceId{0});
  w.PlaceAll(DeviceId{1});
  w.Begin(ProgramKind::kPrefill);
  std::vector<Value> x = {w.Embed(w.All(0), 0), w.Embed({0, 0}, 1)};
  x = w.ReduceScatter(x);
  for (uint32_t b = 1; b < w.head(); ++b) {
    std::vector<Value> n = w.AllGather({w.Norm(b, x[0]), w.Norm(b, x[1])});
    std::vector<Value> y = w.ReduceScatter({w.Run(b, w.All(b), n[0]), w.Run(b, {0, 0}, n[1])});
    x = {w.Add(b, x[0], y[0]), w.Add(b, x[1], y[1])};
  }
  w.Norm(w.head(), x[0]);
  w.Begin(ProgramKind::kDecode);
  EXPECT_THAT(RefusalOf(w.Take()), HasSubstr("the norm of HEAD takes whole tokens"));
}

TEST_F(VerifierTest, ValueInfoSaysWhatAnExecutorNeeds) {
  Plan plan = testing::SequenceParallelPlan(graph_, {1, 1});
  VerifyResult result = Verify(plan);
  ASSERT_TRUE(result.ok());
  size_t scatter = Nth(plan.programs[0], OpKind::kReduceScatter);
  const Op& op = plan.programs[0].ops[scatter];
  const ValueInfo& shard = result.programs[0].values[op.out[1]];
  EXPECT_EQ(shard.device, DeviceId{1});
  EXPECT_EQ(shard.meaning, Meaning::kX);
  EXPECT_EQ(shard.shard, 1u);
  EXPECT_EQ(shard.shards, 2u);
  EXPECT_TRUE(shard.full);
  EXPECT_EQ(shard.def_op, scatter);
  // Read by NORM and by ADD of b1; ADD is later.
  EXPECT_EQ(plan.programs[0].ops[shard.last_use].kind, OpKind::kAdd);
  const ValueInfo& part = result.programs[0].values[op.in[1]];
  EXPECT_FALSE(part.full);
  EXPECT_EQ(part.units, (UnitRange{2, 4}));
  EXPECT_EQ(part.last_use, scatter);
}

// ---- kv

TEST_F(VerifierTest, DecodeNeedsTheKvWherePrefillLeftIt) {
  Plan plan = testing::DisaggregatePlan(graph_);
  plan.programs[0].ops.erase(plan.programs[0].ops.begin() +
                             static_cast<int>(Nth(plan.programs[0], OpKind::kKvMove, 1)));
  std::string refusal = RefusalOf(plan);
  EXPECT_THAT(refusal, HasSubstr("[kv]"));
  EXPECT_THAT(refusal, HasSubstr("run needs the KV of unit 0 of b3 on d1, but d0 holds all of it, "
                                 "in the decode step after prefill"));
}

TEST_F(VerifierTest, DecodeMustBeAFixedPoint) {
  // Chunk m0 runs on d0 and hands its rows to d1, where m1 runs: one step works, and leaves d0
  // without m1's rows, so a second does not.
  auto plan_with = [&](ProgramKind relayed) {
    PlanWriter w(graph_, "relay", 2);
    w.PlaceAll(DeviceId{0});
    w.PlaceAll(DeviceId{1});
    for (ProgramKind kind : {ProgramKind::kPrefill, ProgramKind::kDecode}) {
      w.Begin(kind, 0, 2, MicrobatchKind::kByChunk);
      if (kind == relayed) {
        w.Chain(0, 0);
        for (uint32_t b : {1u, 3u}) w.KvMove(b, w.All(b), 0, 0, 1);
        w.Chain(1, 1);
      } else {
        w.Chain(kind == ProgramKind::kPrefill ? 0 : 1, 0);
        if (kind == ProgramKind::kPrefill) {
          for (uint32_t b : {1u, 3u}) w.KvMove(b, w.All(b), 0, 0, 1);
        }
        w.Chain(kind == ProgramKind::kPrefill ? 0 : 1, 1);
        if (kind == ProgramKind::kPrefill) {
          for (uint32_t b : {1u, 3u}) w.KvMove(b, w.All(b), 1, 0, 1);
        }
      }
    }
    return w.Take();
  };
  EXPECT_THAT(RefusalOf(plan_with(ProgramKind::kPrefill)),
              HasSubstr("when a prompt goes on in a second step"));
  EXPECT_THAT(RefusalOf(plan_with(ProgramKind::kDecode)), HasSubstr("in a second decode step"));
}

TEST_F(VerifierTest, SaysWhetherAPromptMayFollowDecode) {
  EXPECT_TRUE(Verify(testing::TensorSplitPlan(graph_, {1, 1})).prefill_can_follow_decode);
  Plan plan = testing::DisaggregatePlan(graph_);
  EXPECT_FALSE(Verify(plan).prefill_can_follow_decode);
  for (uint32_t b : {1u, 3u}) {
    Op move;
    move.kind = OpKind::kKvMove;
    move.devices = {DeviceId{1}, DeviceId{0}};
    move.block = BlockId{b};
    move.units = {0, 3};
    plan.programs[1].ops.push_back(move);
  }
  ASSERT_EQ(RefusalOf(plan), "");
  EXPECT_TRUE(Verify(plan).prefill_can_follow_decode);
}

TEST_F(VerifierTest, ChunksRunInOrderWhereTheKvIs) {
  PlanWriter w(graph_, "chunks", 2);
  w.PlaceAll(DeviceId{0});
  w.PlaceAll(DeviceId{1});
  w.Begin(ProgramKind::kPrefill, 0, 2, MicrobatchKind::kByChunk);
  w.Chain(0, 1);
  w.Chain(0, 0);
  w.Begin(ProgramKind::kDecode);
  w.Chain(0);
  EXPECT_THAT(RefusalOf(w.Take()),
              HasSubstr("chunk m1 of b1 runs on d0 without the KV of chunk m0"));

  PlanWriter elsewhere(graph_, "chunks", 2);
  elsewhere.PlaceAll(DeviceId{0});
  elsewhere.PlaceAll(DeviceId{1});
  elsewhere.Begin(ProgramKind::kPrefill, 0, 2, MicrobatchKind::kByChunk);
  elsewhere.Chain(0, 0);
  elsewhere.Chain(1, 1);
  elsewhere.Begin(ProgramKind::kDecode);
  elsewhere.Chain(0);
  EXPECT_THAT(RefusalOf(elsewhere.Take()), HasSubstr("(unit 0: d0 holds it at this point)"));
}

TEST_F(VerifierTest, AttentionRunsOnceADevice) {
  PlanWriter w(graph_, "twice", 1);
  w.PlaceAll(DeviceId{0});
  w.Begin(ProgramKind::kPrefill);
  Value x = w.Embed(w.All(0), 0);
  Value n = w.Norm(1, x);
  w.Run(1, {0, 1}, n);
  for (uint32_t b = 1; b < w.head(); ++b) x = w.Whole(b, x);
  w.Sample(w.Run(w.head(), w.All(w.head()), w.Norm(w.head(), x)));
  w.Begin(ProgramKind::kDecode);
  w.Chain(0);
  EXPECT_THAT(RefusalOf(w.Take()), HasSubstr("its KV would be written twice"));
}

// Groups of sequences that live apart must be the same groups in both programs.
TEST_F(VerifierTest, GroupsAgreeWhenTheirHomesDiffer) {
  auto plan_with = [&](uint32_t prefill_groups, uint32_t decode_groups, bool apart) {
    PlanWriter w(graph_, "groups", 2);
    w.PlaceAll(DeviceId{0});
    w.PlaceAll(DeviceId{1});
    w.Begin(ProgramKind::kPrefill, 0, prefill_groups, MicrobatchKind::kBySequence);
    for (uint32_t m = 0; m < prefill_groups; ++m) w.Chain(apart ? m % 2 : 0, m);
    w.Begin(ProgramKind::kDecode, 0, decode_groups, MicrobatchKind::kBySequence);
    for (uint32_t m = 0; m < decode_groups; ++m) w.Chain(apart ? m % 2 : 0, m);
    return w.Take();
  };
  EXPECT_EQ(RefusalOf(plan_with(2, 2, true)), "");
  EXPECT_EQ(RefusalOf(plan_with(2, 4, true)), "");  // s mod 4 decides s mod 2
  EXPECT_THAT(RefusalOf(plan_with(2, 3, true)), HasSubstr("[kv]"));
  EXPECT_EQ(RefusalOf(plan_with(2, 3, false)), "");
  EXPECT_EQ(RefusalOf(plan_with(1, 4, false)), "");
  EXPECT_THAT(RefusalOf(plan_with(255, 256, false)), HasSubstr("classes of sequences"));
}

TEST_F(VerifierTest, KvMoveMovesWhatThisStepWrote) {
  Plan plan = testing::DisaggregatePlan(graph_);
  Op move = NthOp(plan, 0, OpKind::kKvMove);
  Plan early = plan;
  early.programs[0].ops.insert(early.programs[0].ops.begin(), move);
  EXPECT_THAT(RefusalOf(early), HasSubstr("d0 has none of unit 0 of b1"));
  Plan not_attention = plan;
  NthOp(not_attention, 0, OpKind::kKvMove).block = BlockId{2};
  EXPECT_THAT(RefusalOf(not_attention), HasSubstr("b2 (MLP) has no KV"));
  // Decode's rows go to d0, where the rows before them never were.
  PlanWriter w(graph_, "late", 2);
  w.PlaceAll(DeviceId{0});
  w.PlaceAll(DeviceId{1});
  w.Begin(ProgramKind::kPrefill);
  w.Chain(1);
  w.Begin(ProgramKind::kDecode);
  w.Chain(1);
  w.KvMove(1, {0, 1}, 0, 1, 0);
  EXPECT_THAT(RefusalOf(w.Take()), HasSubstr("d0 lacks those before them (unit 0 of b1)"));
}

// ---- completeness, rig, warnings

TEST_F(VerifierTest, EveryMicrobatchIsSampledOnce) {
  Plan plan = testing::LayerSplitPlan(graph_, 2, 2);
  plan.programs[1].ops.pop_back();
  std::string refusal = RefusalOf(plan);
  EXPECT_THAT(refusal, HasSubstr("[completeness] at the end of decode (lane 0): m1 is never"));
  plan = testing::LayerSplitPlan(graph_, 2, 2);
  plan.programs[1].ops.push_back(plan.programs[1].ops.back());
  EXPECT_THAT(RefusalOf(plan), HasSubstr("m1 is sampled a second time"));
}

TEST_F(VerifierTest, RefusesAPathTheRigLacks) {
  Plan plan = testing::LayerSplitPlan(graph_, 2, 1);
  NthOp(plan, 1, OpKind::kTransfer).path = PathKind::kNccl;
  std::string refusal = RefusalOf(plan);
  EXPECT_THAT(refusal, HasSubstr("[rig] at op"));
  EXPECT_THAT(refusal, HasSubstr("nccl"));
  NthOp(plan, 1, OpKind::kTransfer).path = PathKind::kHostStaged;
  EXPECT_EQ(RefusalOf(plan), "");
}

TEST_F(VerifierTest, WarnsOfWhatNothingUses) {
  Plan plan = testing::SinglePlan(graph_);
  plan.n_devices = 2;
  plan.places.push_back({BlockId{2}, {0, 1}, DeviceId{1}});
  plan.slots.push_back({DeviceId{1}, Bytes{10}});
  VerifyResult result = Verify(plan);
  ASSERT_TRUE(result.ok());
  EXPECT_THAT(result.warnings,
              ::testing::ElementsAre(HasSubstr("b2[0:1) is placed on d1"), HasSubstr("slot s0")));
  EXPECT_TRUE(Verify(testing::OffloadPlan(graph_)).warnings.empty());
}

}  // namespace
}  // namespace tandem
