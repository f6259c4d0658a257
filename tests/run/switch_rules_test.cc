// What switches make of a rig, and what they refuse of a plan that nothing runs.
#include "engine/run/switch_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/rig/measurements.h"
#include "engine/run/gpu_rig.h"
#include "kernels/cuda/library_room.h"
#include "tests/support/plan_builders.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMemory = uint64_t{24} << 30;

// A card, and the host's processor beside it, as a rig file has them.
Rig DescribedRig() {
  Rig rig;
  rig.name = "described";
  rig.devices.resize(2);
  for (DeviceSpec& device : rig.devices) {
    device.memory = Bytes{kMemory};
    device.launch_gap = Nanos{3000};
    device.replay_gap = Nanos{1000};
  }
  rig.devices[1].on_host = true;
  return rig;
}

Rig TwoGpus() {
  Rig rig = testing::TestRig(2);
  rig.is_this_machine = true;
  rig.gpus = {0, 1};
  return rig;
}

std::string Refusal(const GpuSwitches& gpu, const Rig& rig, const Plan& plan) {
  try {
    CheckSwitches(gpu, rig, plan);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    return error.what();
  }
  return "";
}

TEST(SwitchRulesTest, DescribedCardsGiveRoomToALibrary) {
  Rig rig = DescribedRig();
  DriveRig(rig, {.prefill_products = PrefillProducts::kCublasLt});
  EXPECT_EQ(rig.devices[0].memory.value + LibraryRoom{}.bytes(), kMemory);
  EXPECT_EQ(rig.devices[1].memory.value, kMemory) << "the host's processor";
  // An engine has to find them here.
  EXPECT_THROW(CheckProducts(rig, PrefillProducts::kCublasLt), Error);
}

TEST(SwitchRulesTest, CpuDevicesThatWereMeasuredAreNoCards) {
  RigMeasurements measured;
  measured.devices = "cpu:0,cpu:1";
  Rig rig = DescribedRig();
  rig.measured = std::make_shared<RigMeasurements>(measured);
  EXPECT_THROW(DriveRig(rig, {.prefill_products = PrefillProducts::kCublasLt}), Error);
  measured.devices = "cuda:0,cpu";
  rig.measured = std::make_shared<RigMeasurements>(measured);
  EXPECT_NO_THROW(DriveRig(rig, {.prefill_products = PrefillProducts::kCublasLt}));
}

TEST(SwitchRulesTest, NothingIsReplayedWithoutGraphs) {
  for (GraphUse graphs : {GraphUse::kAuto, GraphUse::kOn, GraphUse::kOff}) {
    Rig rig = DescribedRig();
    for (LinkProfile* link : {&rig.link, &rig.host_link}) {
      link->send.points = {{Bytes{0}, Nanos{9}}, {Bytes{1}, Nanos{10}}};
      link->send_replayed = link->all_reduce_replayed = link->send;
    }
    DriveRig(rig, {.graphs = graphs});
    EXPECT_EQ(rig.devices[0].replay_gap.has_value(), graphs != GraphUse::kOff);
    for (const LinkProfile* link : {&rig.link, &rig.host_link}) {
      EXPECT_EQ(link->send_replayed.points.empty(), graphs == GraphUse::kOff);
      EXPECT_EQ(link->all_reduce_replayed.points.empty(), graphs == GraphUse::kOff);
      EXPECT_FALSE(link->send.points.empty());
    }
    EXPECT_EQ(rig.devices[0].memory.value, kMemory);
  }
}

TEST(SwitchRulesTest, WhatTheCpuCannotDoIsRefusedWhereThePlanUsesIt) {
  const BlockGraph graph = testing::TinyGraph({});
  const Plan both = testing::TensorSplitPlan(graph, {1, 1});
  const Plan card = testing::SinglePlan(graph);
  const GpuSwitches half{.attention_precision = AttentionPrecision::kHalf};
  const GpuSwitches graphs{.graphs = GraphUse::kOn};
  EXPECT_EQ(Refusal(half, DescribedRig(), card), "");
  EXPECT_THAT(Refusal(half, DescribedRig(), both), HasSubstr("--attention-precision split"));
  EXPECT_EQ(Refusal(graphs, DescribedRig(), card), "");
  EXPECT_THAT(Refusal(graphs, DescribedRig(), both), HasSubstr("cannot record a step"));
  EXPECT_EQ(Refusal(half, TwoGpus(), both), "");
  EXPECT_EQ(Refusal(graphs, TwoGpus(), both), "");
  EXPECT_THAT(Refusal(graphs, ThisMachineRig(2), both), HasSubstr("cannot record a step"));
  EXPECT_EQ(Refusal({}, ThisMachineRig(2), both), "");
}

TEST(SwitchRulesTest, APlanThatFetchesInEveryStepHasNothingToRecord) {
  const Plan plan = testing::OffloadPlan(testing::TinyGraph({}));
  EXPECT_THAT(Refusal({.graphs = GraphUse::kOn}, TwoGpus(), plan),
              HasSubstr("fetches weights in every decode step"));
  EXPECT_EQ(Refusal({.graphs = GraphUse::kAuto}, TwoGpus(), plan), "");
}

}  // namespace
}  // namespace tandem
