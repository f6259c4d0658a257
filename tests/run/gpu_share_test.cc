// How one GPU is cut into devices: the search over bandwidths made up here, what is refused, and
// what a rig says of itself after.
#include "engine/run/gpu_share.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "engine/base/error.h"
#include "engine/run/engine.h"
#include "engine/run/gpu_rig.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

// Bandwidth as GPUs have it: a multiprocessor reaches so much, all together no more than the memory
// gives.
struct FakeGpu {
  GpuCut cut{.sms = 132, .least = 8, .step = 8};
  double of_sm = 40e9;
  double of_memory = 4e12;
  std::set<uint32_t> asked;
  bool together = true;

  ShareBandwidth Measure(uint32_t parts, uint32_t sms) {
    asked.insert(sms);
    const double alone = std::min(sms * of_sm, of_memory);
    return {alone, std::min(alone, of_memory / parts)};
  }
  GpuShareProbes Probes() {
    return {.cut_of = [this](int) { return cut; },
            .measure = [this](int, uint32_t parts, uint32_t sms) { return Measure(parts, sms); },
            .run_together = [this](int, uint32_t, uint32_t) { return together; }};
  }
  GpuShare Calibrate(uint32_t parts) {
    return CalibrateShare(cut, parts, [&](uint32_t sms) { return Measure(parts, sms); });
  }
};

template <typename Call>
void ExpectRefusal(ErrorCode code, const std::string& text, Call call) {
  try {
    call();
    FAIL() << "not refused: want " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(text));
  }
}

TEST(CalibrateShareTest, TakesTheMostThatReadAlikeAloneAndBeside) {
  FakeGpu gpu;  // half of 4 TB/s are 50 multiprocessors' 40 GB/s
  const GpuShare share = gpu.Calibrate(2);
  EXPECT_EQ(share.sms, 48u);
  EXPECT_EQ(share.gpu_sms, 132u);
  EXPECT_TRUE(share.balanced);
  EXPECT_EQ(share.how, "calibrated");
  EXPECT_EQ(share.alone_bytes_per_s, 48 * 40e9);
  EXPECT_EQ(share.beside_bytes_per_s, share.alone_bytes_per_s);
}

TEST(CalibrateShareTest, FindsEveryBoundaryThatThereCanBe) {
  for (uint32_t step : {1u, 2u, 8u}) {
    for (double of_sm = 20e9; of_sm < 600e9; of_sm *= 1.07) {
      FakeGpu gpu{.cut = {.sms = 84, .least = 4, .step = step}, .of_sm = of_sm};
      const GpuShare share = gpu.Calibrate(2);
      // By trying all of them.
      uint32_t want = 0;
      const uint32_t first = (4 + step - 1) / step * step;
      for (uint32_t k = first; 2 * k <= 84; k += step) {
        const ShareBandwidth rates = gpu.Measure(2, k);
        if (rates.beside >= (1 - kShareTolerance) * rates.alone) want = k;
      }
      EXPECT_EQ(share.sms, want == 0 ? first : want) << of_sm << " in steps of " << step;
      EXPECT_EQ(share.balanced, want != 0);
    }
  }
}

TEST(CalibrateShareTest, AllOfTheGpuWhereItsMultiprocessorsAreTheLimit) {
  FakeGpu gpu{.of_sm = 1e9};
  EXPECT_EQ(gpu.Calibrate(2).sms, 64u) << "the largest multiple of 8 in half of 132";
  EXPECT_EQ(gpu.Calibrate(3).sms, 40u);
}

TEST(CalibrateShareTest, SaysWhenNoSizeIsFair) {
  FakeGpu gpu{.of_sm = 1e12};
  const GpuShare share = gpu.Calibrate(2);
  EXPECT_EQ(share.sms, 8u);
  EXPECT_FALSE(share.balanced);
  EXPECT_GT(share.alone_bytes_per_s, share.beside_bytes_per_s);
}

TEST(CalibrateShareTest, OneSpoiledMeasurementOfThreeChangesNothing) {
  FakeGpu gpu;
  int calls = 0;
  const GpuShare share = CalibrateShare(gpu.cut, 2, [&](uint32_t sms) {
    ShareBandwidth rates = gpu.Measure(2, sms);
    if (++calls % 3 == 1) rates.beside *= 0.5;
    if (calls % 3 == 2 && sms > 48) rates.alone *= 0.4;
    return rates;
  });
  EXPECT_EQ(share.sms, 48u);
}

TEST(CalibrateShareTest, RefusesWhatCannotBeCutOrMeasured) {
  FakeGpu gpu{.cut = {.sms = 14, .least = 8, .step = 8}};
  ExpectRefusal(ErrorCode::kDevice, "14 multiprocessors cannot be cut into 2 parts (want 8",
                [&] { gpu.Calibrate(2); });
  for (const double wrong : {0.0, -1.0, std::nan("")}) {
    ExpectRefusal(ErrorCode::kDevice, "--gpu-share off", [&] {
      CalibrateShare({132, 8, 8}, 2, [&](uint32_t) { return ShareBandwidth{1e9, wrong}; });
    });
  }
}

TEST(ParseGpuShareTest, TakesWordsAndNumbers) {
  EXPECT_EQ(ParseGpuShare("auto").kind, GpuShareOption::Kind::kCalibrate);
  EXPECT_EQ(ParseGpuShare("off").kind, GpuShareOption::Kind::kOff);
  EXPECT_EQ(ParseGpuShare("48").kind, GpuShareOption::Kind::kForce);
  EXPECT_EQ(ParseGpuShare("48").sms, 48u);
  for (const char* text : {"", "0", "-8", "half", "48x", "99999999999"}) {
    ExpectRefusal(ErrorCode::kInvalidArgument, "--gpu-share", [&] { ParseGpuShare(text); });
  }
}

Rig RigOf(const std::vector<int>& gpus) {
  GpuInventory found;
  found.built_with_cuda = true;
  found.driver_version = found.runtime_version = 13000;
  for (int index : {0, 1}) {
    GpuInfo gpu;
    gpu.index = index;
    gpu.name = "card";
    gpu.sm_count = 132;
    gpu.compute_major = 9;
    gpu.clock_hz = 1e9;
    gpu.memory_bytes_per_s = 4e12;
    found.gpus.push_back(gpu);
    found.peer_paths.push_back({.from = index, .to = 1 - index, .access = true});
  }
  return GpuRig(gpus, found, [](int) { return GpuMemory{Bytes{8u << 30}, Bytes{8u << 30}}; });
}

TEST(ShareGpusTest, RatesAreThoseOfThePart) {
  FakeGpu gpu;
  Rig rig = RigOf({0, 0, 1});
  const DeviceSpec whole = RigOf({0}).devices[0], apart = rig.devices[2];
  ShareGpus(rig, {}, gpu.Probes());
  ASSERT_EQ(rig.shares.size(), 3u);
  EXPECT_EQ(rig.shares[0].sms, 48u);
  EXPECT_EQ(rig.shares[1].sms, 48u);
  EXPECT_EQ(rig.shares[2].sms, 0u) << "a card of its own stays whole";
  EXPECT_EQ(rig.devices[0].memory_bytes_per_s, 48 * 40e9);
  EXPECT_NEAR(rig.devices[0].flops, whole.flops * 48 / 132, whole.flops * 1e-9);
  EXPECT_EQ(rig.devices[2].flops, apart.flops);
  EXPECT_THAT(rig.description, HasSubstr("48 of 132 multiprocessors each (calibrated)"));
}

TEST(ShareGpusTest, LeavesCardsOfTheirOwnAlone) {
  Rig rig = RigOf({0, 1});
  ShareGpus(rig, {}, GpuShareProbes{});  // nothing is asked
  EXPECT_TRUE(rig.shares.empty());
}

TEST(ShareGpusTest, ForcedAndOff) {
  FakeGpu gpu;
  Rig rig = RigOf({0, 0});
  ShareGpus(rig, ParseGpuShare("64"), gpu.Probes());
  EXPECT_EQ(rig.shares[0].how, "forced");
  EXPECT_EQ(rig.shares[1].sms, 64u);
  EXPECT_FALSE(rig.shares[1].balanced);
  EXPECT_THAT(rig.description, HasSubstr("UNEQUAL"));
  EXPECT_EQ(gpu.asked, std::set<uint32_t>{64});

  Rig off = RigOf({0, 0});
  const double nominal = off.devices[0].memory_bytes_per_s;
  ShareGpus(off, ParseGpuShare("off"), GpuShareProbes{});
  EXPECT_EQ(off.shares[0].sms, 0u);
  EXPECT_EQ(off.shares[0].how, "off");
  EXPECT_EQ(off.devices[0].memory_bytes_per_s, nominal);
  EXPECT_THAT(off.description, HasSubstr("cuda:0 not cut"));
  for (const char* wrong : {"4", "50", "72"}) {
    ExpectRefusal(ErrorCode::kInvalidArgument, "want 8 to 64, in multiples of 8",
                  [&] { ShareGpus(rig, ParseGpuShare(wrong), gpu.Probes()); });
  }
}

TEST(ShareGpusTest, RefusesPartsThatWaitForEachOther) {
  FakeGpu gpu{.together = false};
  Rig rig = RigOf({0, 0});
  ExpectRefusal(ErrorCode::kDevice, "CUDA_DEVICE_MAX_CONNECTIONS",
                [&] { ShareGpus(rig, {}, gpu.Probes()); });
}

TEST(FidelityTest, OneGpuAsTwoIsEmulatedWhateverElseHolds) {
  EXPECT_EQ(FidelityOf(RigOf({0, 1}), ClockKind::kWall), Fidelity::kMeasured);
  EXPECT_EQ(FidelityOf(RigOf({0, 1}), ClockKind::kVirtual), Fidelity::kEmulated);
  EXPECT_EQ(FidelityOf(RigOf({1, 1}), ClockKind::kWall), Fidelity::kEmulated);
  EXPECT_EQ(FidelityOf(RigOf({0, 1, 0}), ClockKind::kWall), Fidelity::kEmulated);
  FakeGpu gpu;
  Rig cut = RigOf({0, 0});
  ShareGpus(cut, {}, gpu.Probes());
  EXPECT_EQ(FidelityOf(cut, ClockKind::kWall), Fidelity::kEmulated);
  Rig described = RigOf({0, 1});
  described.is_this_machine = false;
  EXPECT_EQ(FidelityOf(described, ClockKind::kWall), Fidelity::kEmulated);
}

}  // namespace
}  // namespace tandem
