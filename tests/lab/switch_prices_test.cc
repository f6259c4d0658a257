// A library's products have the price that was measured for it, or none.
#include "engine/lab/switch_prices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "engine/plan/pricer.h"
#include "engine/plan/schedule.h"
#include "engine/rig/measurements.h"
#include "tests/support/plan_builders.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint32_t kStepRows = 512;  // calls of 256 rows and more are the library's

GpuSwitches Library() { return {.prefill_products = PrefillProducts::kCublasLt}; }

// Two cards, of which a probe wrote: products of bf16 at 80 TFLOP/s and 60.
Rig ProbedRig() {
  Rig rig;
  rig.name = "probed";
  for (double tflops : {80.0, 60.0}) {
    DeviceSpec device;
    device.flops = tflops * 1e12;
    device.memory_bytes_per_s = 1e12;
    device.compute_efficiency = 0.5;
    device.launch_gap = Nanos{3000};
    rig.devices.push_back(device);
  }
  RigMeasurements measured;
  measured.devices = "cuda:0,cuda:1";
  measured.figures = {{0, "products of bf16", "TFLOP/s", {80, 79, 81, 5}, ""},
                      {1, "products of bf16", "TFLOP/s", {60, 59, 61, 5}, ""}};
  rig.measured = std::make_shared<RigMeasurements>(measured);
  return rig;
}

class SwitchPricesTest : public ::testing::Test {
 protected:
  const Program& prefill() const { return plan_.program(ProgramKind::kPrefill, 0); }
  const Program& decode() const { return plan_.program(ProgramKind::kDecode, 0); }

  const BlockGraph graph_ = testing::TinyGraph({});
  const Plan plan_ = testing::TensorSplitPlan(graph_, {1, 1});
};

TEST_F(SwitchPricesTest, LongStepsAreAtTheLibrarysRate) {
  const auto rates =
      RatesOfProducts(ProbedRig(), Library(), prefill(), PrefillShape(prefill(), 256), kStepRows);
  EXPECT_EQ(rates.unknown, "");
  EXPECT_THAT(rates.efficiency, ElementsAre(1.0, 1.0));
}

TEST_F(SwitchPricesTest, ShortStepsAndRecordedOnesAreNot) {
  const StepShape few = PrefillShape(prefill(), 255);
  const StepShape many = DecodeShape(decode(), kMostRecordedRows, 8);
  Rig unprobed = ProbedRig();
  unprobed.measured = nullptr;
  EXPECT_EQ(RatesOfProducts(unprobed, Library(), prefill(), few, kStepRows).unknown, "");
  EXPECT_EQ(RatesOfProducts(unprobed, Library(), decode(), many, kStepRows).unknown, "");
  GpuSwitches eager = Library();
  eager.graphs = GraphUse::kOff;
  EXPECT_NE(RatesOfProducts(unprobed, eager, decode(), many, kStepRows).unknown, "");
  // More rows are not recorded, whatever is asked for.
  const StepShape most = DecodeShape(decode(), kMostRecordedRows + 1, 8);
  EXPECT_NE(RatesOfProducts(unprobed, Library(), decode(), most, kStepRows).unknown, "");
  EXPECT_EQ(
      RatesOfProducts(unprobed, {}, prefill(), PrefillShape(prefill(), 512), kStepRows).unknown, "")
      << "own kernels";
}

TEST_F(SwitchPricesTest, ARigWithoutTheFigureHasNoPrice) {
  Rig rig = ProbedRig();
  EXPECT_EQ(WhyLibraryHasNoRate(rig), "");
  RigMeasurements measured = *rig.measured;
  measured.figures[1].absent = "cuBLAS is not there";
  rig.measured = std::make_shared<RigMeasurements>(measured);
  const auto rates =
      RatesOfProducts(rig, Library(), prefill(), PrefillShape(prefill(), 512), kStepRows);
  EXPECT_THAT(rates.unknown, HasSubstr("rig probed has no measured rate of cuBLASLt's products"));
  EXPECT_THAT(rates.unknown, HasSubstr("on d1"));
  EXPECT_THAT(rates.efficiency, IsEmpty());
  EXPECT_THAT(NotesOnPrices(rig, Library()), ElementsAre(rates.unknown));
}

TEST_F(SwitchPricesTest, OnlyProductsAreFaster) {
  const Rig rig = ProbedRig();
  const StepShape shape = PrefillShape(prefill(), 512);
  const std::vector<double> same{0.5, 0.5}, twice{1.0, 1.0};
  const auto own = ModelledOpTimes(graph_, prefill(), shape, rig);
  EXPECT_EQ(ModelledOpTimes(graph_, prefill(), shape, rig, same), own);
  const auto faster = ModelledOpTimes(graph_, prefill(), shape, rig, twice);
  // Slow arithmetic beside endless memory: an MLP takes half, attention more than that.
  Rig slow = rig;
  for (DeviceSpec& device : slow.devices) {
    device.flops = 1e6;
    device.memory_bytes_per_s = 1e21;
  }
  const auto mine = ModelledOpTimes(graph_, prefill(), shape, slow);
  const auto theirs = ModelledOpTimes(graph_, prefill(), shape, slow, twice);
  for (size_t i = 0; i < own.size(); ++i) {
    EXPECT_LE(faster[i], own[i]) << i;
    const Op& op = prefill().ops[i];
    if (op.kind != OpKind::kRun) continue;
    const BlockKind kind = graph_.at(op.block).kind;
    if (kind == BlockKind::kMlp) {
      EXPECT_NEAR(2.0 * static_cast<double>(theirs[i].value), static_cast<double>(mine[i].value), 2)
          << i;
    } else if (kind == BlockKind::kAttention) {
      EXPECT_GT(2 * theirs[i].value, mine[i].value + 2) << i;
    }
  }
}

TEST_F(SwitchPricesTest, WhatChangesNoPriceIsSaid) {
  EXPECT_THAT(NotesOnPrices(ProbedRig(), {}), IsEmpty());
  for (const GpuSwitch& s : AllGpuSwitches()) {
    const std::string key = s.key;
    if (key == "graphs" || key == "fuse_collectives" || key == "prefill_products") continue;
    GpuSwitches gpu;
    ASSERT_TRUE(s.Set(gpu, s.words.back().text));
    if (s.WordOf(gpu) == std::string(s.WordOf({}))) continue;
    EXPECT_THAT(NotesOnPrices(ProbedRig(), gpu), ElementsAre(HasSubstr(s.flag()))) << s.key;
  }
  EXPECT_THAT(NotesOnPrices(ProbedRig(), Library()), ElementsAre(HasSubstr("d0 80 TFLOP/s")));
  EXPECT_THAT(NotesOnPrices(ProbedRig(), {.graphs = GraphUse::kOn}),
              ElementsAre(HasSubstr("no replay_gap_us")));
}

}  // namespace
}  // namespace tandem
