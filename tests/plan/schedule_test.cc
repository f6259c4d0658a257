// The timeline: closed forms for small plans, and what must hold for any plan at all.
#include "engine/plan/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/plan/plan_builder.h"

namespace tandem {
namespace {

using namespace testing_plans;  // NOLINT: the builder's names read as this file's own

constexpr DeviceId kD0{0};
constexpr DeviceId kD1{1};

class ScheduleTest : public testing::Test {
 protected:
  // Every compute op takes `each`.
  static std::vector<Nanos> Times(const PlanBuilder& b, int64_t each) {
    std::vector<Nanos> times;
    for (const Op& op : b.program.ops) times.push_back(Nanos{IsCompute(op.kind) ? each : 0});
    return times;
  }
  Timeline Lay(const PlanBuilder& b, const StepShape& shape, const Rig& rig,
               const std::vector<Nanos>& times) {
    return LaySchedule(graph, b.plan, b.program, b.info, shape, rig, times);
  }

  std::shared_ptr<const Model> model = SmallModel();
  const BlockGraph& graph = model->blocks();
};

// What holds for every timeline.
void ExpectSound(const BlockGraph& graph, const PlanBuilder& b, const StepShape& shape,
                 const Rig& rig, const Timeline& t) {
  const std::vector<Op>& ops = b.program.ops;
  ASSERT_EQ(t.ops.size(), ops.size());
  ASSERT_EQ(t.devices.size(), rig.size());
  Nanos last;
  for (const OpTiming& op : t.ops) last = std::max(last, op.end);
  EXPECT_EQ(t.length, last);
  Nanos exposed;
  for (const DeviceAttribution& d : t.devices) {
    EXPECT_EQ(d.total(), t.length) << "the parts of d" << d.device.value;
    for (Nanos part : {d.compute, d.launch, d.exposed_comm, d.wait, d.idle}) {
      EXPECT_GE(part, Nanos{0});
    }
    exposed = std::max(exposed, d.exposed_comm);
  }
  EXPECT_EQ(t.exposed_comm, exposed);
  EXPECT_LE(t.link_busy, t.length);
  std::map<std::pair<DeviceId, QueueKind>, Nanos> queues;
  std::map<std::pair<DeviceId, DeviceId>, std::vector<std::pair<Nanos, Nanos>>> links;
  for (size_t i = 0; i < ops.size(); ++i) {
    const OpTiming& op = t.ops[i];
    EXPECT_LE(op.start, op.wire);
    EXPECT_LE(op.wire, op.end);
    EXPECT_LE(op.release, op.end);
    EXPECT_LE(op.exposed, op.end - op.wire);
    for (ValueId id : ops[i].in) {
      EXPECT_GE(op.start, t.ops[b.info.values[id].def_op].end) << "op " << i << " before operand";
    }
    for (const WeightSource& source : b.info.weights[i]) {
      if (!source.slot) continue;
      EXPECT_GE(op.start, t.ops[source.fetch_op].end);
    }
    for (size_t d = 0; d < ops[i].devices.size(); ++d) {
      if (ops[i].devices[d].IsHost()) continue;
      // Weights may begin to cross before the step does.
      const bool ahead = ops[i].kind == OpKind::kFetch;
      const Nanos earliest = ahead ? Nanos{INT64_MIN} : Nanos{0};
      const std::pair key{ops[i].devices[d], QueueOn(ops[i], d)};
      Nanos& free = queues.try_emplace(key, earliest).first->second;
      EXPECT_GE(op.start, free) << "op " << i << " before its queue was free";
      free = std::max(free, op.release);
    }
    if (op.after) {
      // Not its end: a staged message lets its first link go before.
      EXPECT_LE(t.ops[*op.after].start, op.start);
    }
    std::vector<Hop> hops =
        HopsOf(graph, ops[i], b.info, ShapeFor(ops[i], shape), b.plan.wire, rig);
    if (hops.size() == 1) links[{hops[0].src, hops[0].dst}].push_back({op.wire, op.end});
  }
  for (auto& [link, uses] : links) {
    std::sort(uses.begin(), uses.end());
    for (size_t i = 1; i < uses.size(); ++i) {
      EXPECT_LE(uses[i - 1].second, uses[i].first) << "two messages on one link at once";
    }
  }
}

TEST_F(ScheduleTest, OneDeviceIsTheSumOfItsOps) {
  PlanBuilder b = TensorSplit(graph, {1}, Algorithm::kNone);
  Rig rig = SmallRig(1);
  StepShape shape = PrefillShape(b.program, 4);
  Timeline t = Lay(b, shape, rig, Times(b, 1000));
  int64_t n = static_cast<int64_t>(b.program.ops.size());
  Nanos ids = rig.HopTime(kD0, kHost, Bytes{4});
  // Three ADDs run the next block's NORM: not the last one, for HEAD's is apart.
  const int64_t launches = n - 3;
  EXPECT_EQ(t.length, Nanos{n * 1000 + launches * 700} + ids);
  EXPECT_EQ(t.devices[0].compute, Nanos{n * 1000});
  EXPECT_EQ(t.devices[0].launch, Nanos{launches * 700} + ids);
  EXPECT_EQ(t.devices[0].exposed_comm, Nanos{0});
  EXPECT_EQ(t.devices[0].wait, Nanos{0});
  EXPECT_EQ(t.link_busy, Nanos{0});
  ExpectSound(graph, b, shape, rig, t);
}

TEST_F(ScheduleTest, LayerSplitTakesTurns) {
  PlanBuilder b = LayerSplit(graph, 3, 1);
  Rig rig = SmallRig(2);
  StepShape shape = PrefillShape(b.program, 4);
  Timeline t = Lay(b, shape, rig, Times(b, 1000));
  // EMBED; three ops for each of four blocks, but the head has no ADD; SAMPLE. On either device one
  // ADD runs the NORM after it.
  const int64_t first = 7 * 1700 - 700, second = 9 * 1700 - 700;
  Nanos hop = rig.HopTime(kD0, kD1, Bytes{4 * 128 * 4});
  Nanos ids = rig.HopTime(kD1, kHost, Bytes{4});
  EXPECT_EQ(t.length, Nanos{first + second} + hop + ids);
  EXPECT_EQ(t.link_busy, hop);
  EXPECT_EQ(t.devices[1].wait, Nanos{first});
  EXPECT_EQ(t.devices[1].exposed_comm, hop);
  EXPECT_EQ(t.devices[0].exposed_comm, hop);
  EXPECT_EQ(t.devices[0].idle, Nanos{second} + ids);
  ExpectSound(graph, b, shape, rig, t);
}

TEST_F(ScheduleTest, MicrobatchesOverlapInALayerSplit) {
  Rig rig = SmallRig(2);
  // The work of a step stays the same; a microbatch takes its share of it.
  auto length = [&](uint32_t m) {
    PlanBuilder b = LayerSplit(graph, 3, m);
    StepShape shape = PrefillShape(b.program, 64);
    Timeline t = Lay(b, shape, rig, Times(b, 240000 / m));
    ExpectSound(graph, b, shape, rig, t);
    return t.length;
  };
  EXPECT_LT(length(2), length(1));
  EXPECT_LT(length(4), length(2));
  // Never below the larger stage.
  EXPECT_GT(length(4), Nanos{9 * 240000});
}

TEST_F(ScheduleTest, TensorSplitExposesEveryAllReduce) {
  PlanBuilder b = TensorSplit(graph, {1, 1}, Algorithm::kOneShot);
  Rig rig = SmallRig(2);
  StepShape shape = DecodeShape(b.program, 1, 10);
  Timeline t = Lay(b, shape, rig, Times(b, 1000));
  Nanos reduce = rig.AllReduceTime(2, Bytes{128 * 4});
  Nanos gather = rig.ExchangeTime(2, Bytes{192 * 4});  // the larger share of the vocabulary
  std::vector<UnitRange> vocabulary = Shares(graph, graph.head().value, {1, 1});
  ASSERT_EQ(graph.at(graph.head()).ElemCount(vocabulary[1]), 172u);
  gather = rig.ExchangeTime(2, Bytes{172 * 4});
  Nanos moved = Nanos{5 * reduce.value} + gather;
  EXPECT_EQ(t.link_busy, moved);
  EXPECT_EQ(t.devices[0].exposed_comm, moved);
  EXPECT_EQ(t.devices[1].exposed_comm, moved);
  EXPECT_EQ(t.devices[1].wait, Nanos{0});
  ExpectSound(graph, b, shape, rig, t);
}

TEST_F(ScheduleTest, ASlowPeerIsWaitedFor) {
  PlanBuilder b = TensorSplit(graph, {1, 1}, Algorithm::kOneShot);
  Rig rig = SmallRig(2);
  std::vector<Nanos> times = Times(b, 1000);
  for (size_t i = 0; i < times.size(); ++i) {
    if (b.program.ops[i].kind == OpKind::kRun && b.program.ops[i].devices[0] == kD1) {
      times[i] = Nanos{5000};
    }
  }
  StepShape shape = DecodeShape(b.program, 1, 10);
  Timeline t = Lay(b, shape, rig, times);
  EXPECT_EQ(t.devices[0].wait, Nanos{6 * 4000});
  EXPECT_EQ(t.devices[1].wait, Nanos{0});
  ExpectSound(graph, b, shape, rig, t);
}

TEST_F(ScheduleTest, AnIdealLinkCostsNothing) {
  Rig rig = SmallRig(3, LinkKind::kIdeal);
  rig.host_link = rig.link;
  rig.host_link.kind = LinkKind::kHost;
  for (auto algorithm : {Algorithm::kOneShot, Algorithm::kTwoShot}) {
    PlanBuilder b = TensorSplit(graph, {2, 1, 1}, algorithm);
    StepShape shape = PrefillShape(b.program, 20);
    Timeline t = Lay(b, shape, rig, Times(b, 1000));
    EXPECT_EQ(t.link_busy, Nanos{0});
    EXPECT_EQ(t.exposed_comm, Nanos{0});
    ExpectSound(graph, b, shape, rig, t);
  }
}

// Decode steps are priced as replays where the rig says what those cost, but for programs that are
// not recorded.
TEST_F(ScheduleTest, ReplayedStepsHaveAGapOfTheirOwn) {
  Rig rig = SmallRig(2);
  PlanBuilder b = LayerSplit(graph, 3, 1);
  const auto gap_of = [&](PlanBuilder& plan, ProgramKind kind) {
    plan.program.kind = kind;
    const Timeline t = Lay(plan, DecodeShape(plan.program, 1, 10), rig, Times(plan, 5000));
    Nanos most;
    for (const OpTiming& op : t.ops) most = std::max(most, op.launch);
    return most;
  };
  EXPECT_EQ(gap_of(b, ProgramKind::kDecode), rig.devices[0].launch_gap);
  for (DeviceSpec& device : rig.devices) device.replay_gap = Nanos{100};
  EXPECT_EQ(gap_of(b, ProgramKind::kDecode), Nanos{100});
  EXPECT_EQ(gap_of(b, ProgramKind::kPrefill), rig.devices[0].launch_gap);
  PlanBuilder fetching = Offload(graph);
  EXPECT_EQ(gap_of(fetching, ProgramKind::kDecode), rig.devices[0].launch_gap);
}

// So are what moves between devices in such steps, and what crosses to the host.
TEST_F(ScheduleTest, ReplayedStepsMoveByTheCurvesForReplays) {
  Rig rig = SmallRig(2);
  rig.link.all_reduce.points = {{Bytes{0}, Nanos{9000}}, {Bytes{1000000}, Nanos{1009000}}};
  PlanBuilder b = TensorSplit(graph, {1, 1}, Algorithm::kOneShot);
  b.program.kind = ProgramKind::kDecode;
  const auto lay = [&](const Rig& on, uint32_t sequences) {
    return Lay(b, DecodeShape(b.program, sequences, 10), on, Times(b, 1000));
  };
  const auto time_of = [&](const Timeline& t, OpKind kind) {
    for (size_t i = 0; i < b.program.ops.size(); ++i) {
      if (b.program.ops[i].kind == kind) return t.ops[i].end - t.ops[i].wire;
    }
    return Nanos{-1};
  };
  Rig replays = rig;
  const auto less = [](TimeCurve curve, int64_t nanos) {
    for (TimePoint& point : curve.points) point.time = point.time - Nanos{nanos};
    return curve;
  };
  replays.link.send_replayed = less(rig.link.send, 1000);
  replays.link.all_reduce_replayed = less(rig.link.all_reduce, 2000);
  replays.host_link.send_replayed = less(rig.host_link.send, 3000);
  const std::vector<std::pair<OpKind, int64_t>> gains{
      {OpKind::kAllGather, 1000}, {OpKind::kAllReduce, 2000}, {OpKind::kSample, 3000}};
  const Timeline eager = lay(rig, 1), replayed = lay(replays, 1);
  for (const auto& [kind, gain] : gains) {
    EXPECT_EQ(time_of(eager, kind) - time_of(replayed, kind), Nanos{gain}) << ToString(kind);
  }
  ExpectSound(graph, b, DecodeShape(b.program, 1, 10), replays, replayed);
  // Not steps of more rows than are recorded, nor prefill, nor over NCCL, nor beside a processor.
  EXPECT_EQ(lay(replays, kMostRecordedRows + 1).length, lay(rig, kMostRecordedRows + 1).length);
  b.program.kind = ProgramKind::kPrefill;
  EXPECT_EQ(lay(replays, 1).length, lay(rig, 1).length);
  b.program.kind = ProgramKind::kDecode;
  for (Op& op : b.program.ops) op.path = PathKind::kNccl;
  const Timeline apart = lay(replays, 1);
  for (OpKind kind : {OpKind::kAllGather, OpKind::kAllReduce}) {
    EXPECT_EQ(time_of(apart, kind), time_of(eager, kind)) << ToString(kind);
  }
  EXPECT_TRUE(ReplaysStep(b.program, DecodeShape(b.program, 1, 10), replays));
  replays.devices[1].on_host = true;
  EXPECT_FALSE(ReplaysStep(b.program, DecodeShape(b.program, 1, 10), replays));
}

TEST_F(ScheduleTest, OffloadHidesFetchesBehindLongCompute) {
  PlanBuilder b = Offload(graph);
  Rig rig = SmallRig(1);
  StepShape shape = DecodeShape(b.program, 1, 10);
  Timeline slow = Lay(b, shape, rig, Times(b, 1000000));
  // Only the first block's fetch is seen.
  const Block& embed = graph.blocks[0];
  Nanos first = rig.HopTime(kHost, kD0, embed.UnitBytes(embed.AllUnits()));
  EXPECT_EQ(slow.devices[0].exposed_comm, first);
  ExpectSound(graph, b, shape, rig, slow);
  Nanos ids = rig.HopTime(kD0, kHost, Bytes{4});
  // Without compute the step is the fetches, one after the other.
  rig.devices[0].launch_gap = Nanos{0};
  Timeline fast = Lay(b, shape, rig, Times(b, 0));
  Nanos all;
  for (const Block& block : graph.blocks) {
    all += rig.HopTime(kHost, kD0, block.UnitBytes(block.AllUnits()));
  }
  EXPECT_EQ(fast.length, all + ids);
  ExpectSound(graph, b, shape, rig, fast);
}

// Where every program begins with the same fetches, a step's first ones run under the tail of a
// step like it: compute hides them all, and without compute the link never rests.
TEST_F(ScheduleTest, FetchesBeginBeforeTheirStepWhereAllProgramsBeginAlike) {
  PlanBuilder b = Offload(graph);
  Rig rig = SmallRig(1);
  StepShape shape = DecodeShape(b.program, 1, 10);
  const Timeline alone = Lay(b, shape, rig, Times(b, 1000000));
  b.plan.programs = {b.program, b.program};
  const Timeline steady = Lay(b, shape, rig, Times(b, 1000000));
  EXPECT_EQ(steady.devices[0].exposed_comm, Nanos{0});
  EXPECT_EQ(steady.length, alone.length - alone.devices[0].exposed_comm);
  EXPECT_LT(steady.ops[0].start, Nanos{0});
  EXPECT_EQ(steady.ops[0].end - steady.ops[0].start, alone.ops[0].end);
  ExpectSound(graph, b, shape, rig, steady);

  rig.devices[0].launch_gap = Nanos{0};
  Nanos all;
  for (const Block& block : graph.blocks) {
    all += rig.HopTime(kHost, kD0, block.UnitBytes(block.AllUnits()));
  }
  const Timeline streaming = Lay(b, shape, rig, Times(b, 0));
  EXPECT_EQ(streaming.length, all) << "from step to step the link is busy";
  ExpectSound(graph, b, shape, rig, streaming);

  // A decode step that begins with another block: nobody knows what comes next.
  Program other = b.program;
  other.ops[0].block = BlockId{1};
  b.plan.programs = {b.program, other};
  EXPECT_EQ(Lay(b, shape, rig, Times(b, 0)).ops[0].start, Nanos{0});
}

// What goes to the host's processor goes over the card's link to the host, after what is there.
TEST_F(ScheduleTest, TheHostsProcessorSharesTheCardsLink) {
  PlanBuilder b(graph, 2);
  b.plan.slots = {Slot{kD0, Bytes{1u << 20}}};
  Rig rig = SmallRig(2);
  rig.devices[1].on_host = true;
  rig.devices[1].memory_bytes_per_s = 1e12;  // enough for all
  const ValueId x = b.Transfer(b.Run(0, b.All(0), 1, 0, std::nullopt), 0);
  b.Fetch(1, b.All(1), kHost, 0, 0);
  b.Norm(1, 0, 0, x);
  const StepShape shape = PrefillShape(b.program, 4);
  const Timeline t = Lay(b, shape, rig, Times(b, 1000));
  const Bytes sent{4 * graph.config.hidden * 4};
  const Nanos hop = rig.HopTime(kHost, kD0, sent);
  const Nanos fetch = rig.HopTime(kHost, kD0, graph.blocks[1].UnitBytes(b.All(1)));
  EXPECT_EQ(t.ops[2].end, fetch) << "the fetch waits for nothing";
  EXPECT_EQ(t.ops[1].end, fetch + hop) << "one direction of one link";
  const std::vector<Hop> hops =
      HopsOf(graph, b.program.ops[1], b.info, shape.microbatches[0], WireType::kF32, rig);
  ASSERT_EQ(hops.size(), 1u);
  EXPECT_EQ(hops[0].path, rig.HostPath());
  EXPECT_EQ(rig.HopTime(kHost, kD1, sent).value,
            static_cast<int64_t>(
                2e9 * static_cast<double>(sent.value) / rig.devices[1].memory_bytes_per_s + 0.5))
      << "one memory";
}

TEST_F(ScheduleTest, AFetchWaitsForTheReadersOfItsSlot) {
  PlanBuilder b = Offload(graph);
  Rig rig = SmallRig(1);
  StepShape shape = DecodeShape(b.program, 1, 10);
  Timeline t = Lay(b, shape, rig, Times(b, 1000000));
  std::map<SlotId, Nanos> read_until;
  std::map<uint32_t, SlotId> slot_of_block;
  uint32_t checked = 0;
  for (size_t i = 0; i < b.program.ops.size(); ++i) {
    const Op& op = b.program.ops[i];
    if (op.kind == OpKind::kFetch) {
      if (read_until.count(*op.slot)) {
        EXPECT_GE(t.ops[i].start, read_until[*op.slot]);
        ++checked;
      }
      slot_of_block[op.block.value] = *op.slot;
    }
    if (op.kind == OpKind::kRun) read_until[slot_of_block[op.block.value]] = t.ops[i].end;
  }
  EXPECT_EQ(checked, 4u);
}

TEST_F(ScheduleTest, ARunWaitsForTheKvThatMovedToItsDevice) {
  PlanBuilder b(graph, 2);
  ValueId x0 = b.Run(0, b.All(0), 0, 0, std::nullopt);
  ValueId n0 = b.Norm(1, 0, 0, x0);
  ValueId n1 = b.Transfer(n0, 1);
  b.Run(1, UnitRange{0, 2}, 0, 0, n0);
  b.KvMove(1, UnitRange{0, 2}, 0, 1, 0);
  b.Run(1, UnitRange{0, 4}, 1, 0, n1);
  Rig rig = SmallRig(2);
  StepShape shape = PrefillShape(b.program, 8);
  Timeline t = Lay(b, shape, rig, Times(b, 100000));
  EXPECT_GE(t.ops[4].start, t.ops[3].end);
  EXPECT_GE(t.ops[5].start, t.ops[4].end);
  ExpectSound(graph, b, shape, rig, t);
}

TEST_F(ScheduleTest, OneDirectionCarriesOneMessageAtATime) {
  // Two fetches from the same peer into different queues would overlap but for the link.
  PlanBuilder b(graph, 2);
  b.plan.slots = {Slot{kD1, Bytes{1 << 20}}, Slot{kD1, Bytes{1 << 20}}};
  b.Fetch(2, b.All(2), kD0, 1, 0);
  b.Fetch(4, b.All(4), kD0, 1, 1);
  b.program.ops[1].queue = QueueKind::kComm;
  Rig rig = SmallRig(2);
  StepShape shape = PrefillShape(b.program, 8);
  Timeline t = Lay(b, shape, rig, Times(b, 0));
  EXPECT_EQ(t.ops[1].start, t.ops[0].end);
  EXPECT_EQ(t.ops[1].after, 0u);
  // The other way round there is another link, unless the two share one.
  b.program.ops[1].devices = {kD1, kD0};
  b.plan.slots[1].device = kD0;
  EXPECT_EQ(Lay(b, shape, rig, Times(b, 0)).ops[1].start, Nanos{0});
  rig.link.full_duplex = false;
  t = Lay(b, shape, rig, Times(b, 0));
  EXPECT_EQ(t.ops[1].start, t.ops[0].end);
}

TEST_F(ScheduleTest, AStagedMessageTakesTheLinksCurveEndToEnd) {
  Rig rig = SmallRig(2, LinkKind::kHostStaged);
  PlanBuilder b = LayerSplit(graph, 3, 1);
  StepShape shape = PrefillShape(b.program, 50);
  Timeline t = Lay(b, shape, rig, Times(b, 1000));
  Bytes bytes{50 * 128 * 4};
  for (size_t i = 0; i < b.program.ops.size(); ++i) {
    if (b.program.ops[i].kind != OpKind::kTransfer) continue;
    EXPECT_EQ(t.ops[i].end - t.ops[i].wire, rig.link.send.At(bytes));
  }
  EXPECT_EQ(t.link_busy, rig.link.send.At(bytes));
  ExpectSound(graph, b, shape, rig, t);
}

TEST_F(ScheduleTest, EmptyStepsTakeNoTime) {
  for (PlanBuilder b :
       {LayerSplit(graph, 3, 2), TensorSplit(graph, {1, 1}, Algorithm::kOneShot), Offload(graph)}) {
    StepShape shape;
    shape.microbatches.resize(b.program.microbatches);
    Rig rig = SmallRig(b.plan.n_devices);
    Timeline t = Lay(b, shape, rig, Times(b, 1000));
    EXPECT_EQ(t.length, Nanos{0});
    ExpectSound(graph, b, shape, rig, t);
  }
}

TEST_F(ScheduleTest, ThreeDevicesAndTheirAlgorithms) {
  Rig rig = SmallRig(3);
  StepShape shape = DecodeShape(Program{}, 6, 10);
  Nanos one_shot = rig.ExchangeTime(3, Bytes{6 * 128 * 4});
  Nanos two_shot = rig.AllReduceTime(3, Bytes{6 * 128 * 4});
  EXPECT_NE(one_shot, two_shot);
  for (auto [algorithm, want] :
       {std::pair{Algorithm::kOneShot, one_shot}, {Algorithm::kTwoShot, two_shot}}) {
    PlanBuilder b = TensorSplit(graph, {1, 1, 1}, algorithm);
    Timeline t = Lay(b, shape, rig, Times(b, 1000));
    for (size_t i = 0; i < b.program.ops.size(); ++i) {
      if (b.program.ops[i].kind == OpKind::kAllReduce) {
        EXPECT_EQ(t.ops[i].end - t.ops[i].wire, want);
      }
    }
    ExpectSound(graph, b, shape, rig, t);
  }
}

// A program that nobody would write, but whose operands are all there: random runs, reduces,
// transfers, fetches and KV moves over `n` devices.
PlanBuilder RandomPlan(const BlockGraph& graph, uint32_t n, std::mt19937& random) {
  auto pick = [&](uint32_t below) { return static_cast<uint32_t>(random() % below); };
  uint32_t microbatches = 1 + pick(3);
  PlanBuilder b(graph, n, microbatches,
                pick(2) == 0 ? MicrobatchKind::kByChunk : MicrobatchKind::kBySequence);
  for (uint32_t d = 0; d < n; ++d) b.plan.slots.push_back(Slot{DeviceId{0}, Bytes{1 << 20}});
  std::vector<std::vector<std::vector<ValueId>>> x(microbatches,
                                                   std::vector<std::vector<ValueId>>(n));
  for (uint32_t mb = 0; mb < microbatches; ++mb) {
    for (uint32_t d = 0; d < n; ++d) x[mb][d] = {b.Run(0, b.All(0), d, mb, std::nullopt)};
  }
  for (int step = 0; step < 40; ++step) {
    uint32_t mb = pick(microbatches), d = pick(n), other = (d + 1 + pick(std::max(n - 1, 1u))) % n;
    uint32_t block = 1 + pick(graph.size() - 2);
    auto any = [&](uint32_t device) {
      return x[mb][device][pick(static_cast<uint32_t>(x[mb][device].size()))];
    };
    UnitRange part{0, std::max(1u, graph.at(BlockId{block}).units / 2)};
    switch (pick(7)) {
      case 0:
        x[mb][d].push_back(b.Add(block, d, mb, any(d), b.Run(block, part, d, mb, any(d))));
        break;
      case 1:
        if (n > 1) x[mb][other].push_back(b.Transfer(any(d), other));
        break;
      case 2:
      case 3: {
        if (n == 1) break;
        std::vector<ValueId> partials;
        for (uint32_t rank = 0; rank < n; ++rank) {
          partials.push_back(b.Run(block, part, rank, mb, any(rank)));
        }
        std::vector<ValueId> sums =
            pick(2) == 0
                ? b.AllGather(b.ReduceScatter(partials))
                : b.AllReduce(partials, pick(2) == 0 ? Algorithm::kOneShot : Algorithm::kTwoShot);
        for (uint32_t rank = 0; rank < n; ++rank) x[mb][rank].push_back(sums[rank]);
        break;
      }
      case 4:
        b.Fetch(block, b.All(block), n > 1 && pick(2) == 0 ? DeviceId{(int)other} : kHost, d, d);
        break;
      case 5:
        if (n > 1) b.KvMove(1 + 2 * pick(2), UnitRange{0, 2}, d, other, mb);
        break;
      default:
        b.Sample(d, mb, b.Run(graph.head().value, b.All(graph.head().value), d, mb, any(d)));
    }
  }
  return b;
}

TEST_F(ScheduleTest, PartsSumToTheStepForAnyPlan) {
  std::mt19937 random(20);
  for (int round = 0; round < 300; ++round) {
    uint32_t n = 1 + random() % 4;
    PlanBuilder b = RandomPlan(graph, n, random);
    LinkKind kinds[] = {LinkKind::kNvlink, LinkKind::kHostStaged, LinkKind::kIdeal,
                        LinkKind::kPcieP2p};
    Rig rig = SmallRig(n, kinds[random() % 4]);
    rig.link.full_duplex = random() % 2 == 0;
    if (random() % 2 == 0) rig.link.all_reduce = rig.link.send;
    StepShape shape = random() % 2 == 0 ? PrefillShape(b.program, random() % 40)
                                        : DecodeShape(b.program, random() % 6, 30);
    std::vector<Nanos> times;
    for (size_t i = 0; i < b.program.ops.size(); ++i) {
      times.push_back(Nanos{static_cast<int64_t>(random() % 20000)});
    }
    Timeline t = LaySchedule(graph, b.plan, b.program, b.info, shape, rig, times);
    ExpectSound(graph, b, shape, rig, t);
    if (testing::Test::HasFailure()) FAIL() << "round " << round;
  }
}

TEST_F(ScheduleTest, TheSameStepGivesTheSameTimeline) {
  std::mt19937 random(3);
  PlanBuilder b = RandomPlan(graph, 3, random);
  Rig rig = SmallRig(3);
  StepShape shape = PrefillShape(b.program, 12);
  ProgramSchedule schedule(graph, b.plan, b.program, b.info);
  Timeline first = schedule.Lay(shape, rig, Times(b, 1234));
  Timeline again = schedule.Lay(shape, rig, Times(b, 1234));
  EXPECT_EQ(ChromeTrace(b.plan, b.program, first), ChromeTrace(b.plan, b.program, again));
}

TEST_F(ScheduleTest, TraceSlicesOfAQueueDoNotOverlap) {
  PlanBuilder b = LayerSplit(graph, 3, 3, MicrobatchKind::kBySequence);
  Rig rig = SmallRig(2);
  StepShape shape = DecodeShape(b.program, 6, 10);
  Timeline t = Lay(b, shape, rig, Times(b, 5000));
  nlohmann::json events = nlohmann::json::parse(ChromeTrace(b.plan, b.program, t));
  std::map<std::pair<int, int>, std::vector<std::pair<double, double>>> tracks;
  size_t slices = 0;
  for (const nlohmann::json& event : events) {
    if (event.at("ph") != "X") continue;
    ++slices;
    double begin = event.at("ts");
    double length = event.at("dur");
    EXPECT_GT(length, 0);
    tracks[{event.at("pid"), event.at("tid")}].push_back({begin, begin + length});
  }
  // Three transfers show on both devices, three samples also as ids.
  EXPECT_EQ(slices, b.program.ops.size() + 3 + 3);
  for (auto& [track, uses] : tracks) {
    std::sort(uses.begin(), uses.end());
    for (size_t i = 1; i < uses.size(); ++i) {
      EXPECT_LE(uses[i - 1].second, uses[i].first + 1e-6);
    }
  }
}

}  // namespace
}  // namespace tandem
