// Devices by name and the rig that GPUs make, against inventories made up here: what is refused,
// and what a plan is priced and bounded with.
#include "engine/run/gpu_rig.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "engine/base/error.h"
#include "kernels/cuda/library_room.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kGiB = uint64_t{1} << 30;

GpuInfo Gpu(int index, int major = 8, int minor = 6) {
  GpuInfo gpu;
  gpu.index = index;
  gpu.name = "GPU " + std::to_string(index);
  gpu.total_memory = Bytes{24 * kGiB};
  gpu.sm_count = 82;
  gpu.compute_major = major;
  gpu.compute_minor = minor;
  gpu.memory_bytes_per_s = 936e9;
  gpu.clock_hz = 1.7e9;
  return gpu;
}

GpuInventory Two(bool access, std::optional<bool> nvlink) {
  GpuInventory found;
  found.built_with_cuda = true;
  found.driver_message = "driver for CUDA 13.0";
  found.driver_version = 13000;
  found.runtime_version = 13000;
  found.gpus = {Gpu(0), Gpu(1)};
  for (int from : {0, 1}) {
    found.peer_paths.push_back(GpuPeerPath{.from = from,
                                           .to = 1 - from,
                                           .access = access,
                                           .native_atomics = !nvlink.value_or(true),
                                           .nvlink = nvlink,
                                           .nvlink_why = nvlink ? "" : "nvml: not here"});
  }
  return found;
}

GpuMemory TwentyFree(int) { return GpuMemory{Bytes{20 * kGiB}, Bytes{24 * kGiB}}; }

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

TEST(DeviceListTest, ReadsCountsAndNames) {
  EXPECT_EQ(ParseDeviceList("2").count, 2u);
  EXPECT_THAT(ParseDeviceList("2").gpus, IsEmpty());
  EXPECT_EQ(ParseDeviceList("cpu").count, 1u);
  EXPECT_EQ(ParseDeviceList("cpu:0,cpu:1,cpu:2").count, 3u);
  EXPECT_THAT(ParseDeviceList("cuda:1").gpus, ElementsAre(1));
  EXPECT_THAT(ParseDeviceList("cuda:0,cuda:1").gpus, ElementsAre(0, 1));
  EXPECT_THAT(ParseDeviceList("cuda:0,cuda:0").gpus, ElementsAre(0, 0));
  EXPECT_EQ(ParseDeviceList("cuda:0,cuda:0").count, 2u);
  EXPECT_THAT(ParseDeviceList("cuda:1,cpu").gpus, ElementsAre(1, Rig::kNotAGpu));
  EXPECT_EQ(ParseDeviceList("cuda:1,cpu").count, 2u);
}

TEST(DeviceListTest, RefusesWhatIsNoList) {
  for (const char* text : {"", "0", "17", "-1", "gpu:0", "cuda", "cuda:", "cuda:x", "cuda:-1",
                           "cuda:0,,cuda:1", "cpu:x", "cuda:999", "cuda:0;cuda:1"}) {
    EXPECT_THROW(ParseDeviceList(text), Error) << text;
  }
  ExpectRefusal(ErrorCode::kInvalidArgument, "the CPU after all CUDA devices",
                [] { ParseDeviceList("cpu:0,cuda:0"); });
  ExpectRefusal(ErrorCode::kInvalidArgument, "the CPU once",
                [] { ParseDeviceList("cuda:0,cpu:0,cpu:1"); });
}

TEST(GpuRigTest, RefusesWithWhatToDo) {
  const std::vector<int> both{0, 1};
  GpuInventory none;
  ExpectRefusal(ErrorCode::kUnsupported, "built without CUDA",
                [&] { GpuRig(both, none, TwentyFree); });
  GpuInventory no_driver = Two(true, true);
  no_driver.driver_version = 0;
  ExpectRefusal(ErrorCode::kDevice, "no NVIDIA driver",
                [&] { GpuRig(both, no_driver, TwentyFree); });
  GpuInventory old_driver = Two(true, true);
  old_driver.driver_version = 12080;
  ExpectRefusal(ErrorCode::kDevice, "for CUDA 12.8, which is too old (want CUDA 13.0",
                [&] { GpuRig(both, old_driver, TwentyFree); });
  ExpectRefusal(ErrorCode::kInvalidArgument, "no cuda:5 (have: cuda:0 GPU 0, cuda:1 GPU 1)",
                [&] { GpuRig(std::vector<int>{0, 5}, Two(true, true), TwentyFree); });
  GpuInventory old_gpu = Two(true, true);
  old_gpu.gpus[1] = Gpu(1, 7, 5);
  ExpectRefusal(ErrorCode::kUnsupported, "compute capability 7.5 (want 8.0",
                [&] { GpuRig(both, old_gpu, TwentyFree); });
}

TEST(GpuRigTest, TheCpuBesideGpusHasHalfOfTheHostsMemoryAndItsLink) {
  const std::vector<int> mixed{0, Rig::kNotAGpu};
  const Rig rig = GpuRig(mixed, Two(true, true), TwentyFree);
  ASSERT_EQ(rig.size(), 2u);
  EXPECT_FALSE(rig.devices[0].on_host);
  EXPECT_TRUE(rig.devices[1].on_host);
  EXPECT_EQ(rig.devices[1].memory + rig.host_memory, ThisMachineRig(1).host_memory);
  EXPECT_THAT(rig.gpus, ElementsAre(0, Rig::kNotAGpu));
  EXPECT_FALSE(rig.SharesAGpu());
  EXPECT_EQ(rig.HopTime(DeviceId{0}, DeviceId{1}, Bytes{1000}),
            rig.HopTime(DeviceId{0}, kHost, Bytes{1000}));
  EXPECT_EQ(rig.HopPath(DeviceId{1}, DeviceId{0}, PathKind::kNccl), PathKind::kCopy);
}

TEST(GpuRigTest, AnOlderDriverOfTheSameMajorVersionWillDo) {
  GpuInventory found = Two(true, true);
  found.runtime_version = 13020;
  EXPECT_NO_THROW(GpuRig(std::vector<int>{0}, found, TwentyFree));
}

TEST(GpuRigTest, TheLinkIsWhatTheDriverGrants) {
  const std::vector<int> both{0, 1};
  const Rig nvlink = GpuRig(both, Two(true, true), TwentyFree);
  EXPECT_EQ(nvlink.link.kind, LinkKind::kNvlink);
  EXPECT_EQ(nvlink.ResolvePath(PathKind::kAuto), PathKind::kP2p);
  EXPECT_EQ(nvlink.HostPath(), PathKind::kCopy);
  EXPECT_TRUE(nvlink.is_this_machine);
  EXPECT_FALSE(nvlink.SharesAGpu());
  const Rig pcie = GpuRig(both, Two(true, false), TwentyFree);
  EXPECT_EQ(pcie.link.kind, LinkKind::kPcieP2p) << "atomics over the path are no NVLink";
  const Rig unknown = GpuRig(both, Two(true, std::nullopt), TwentyFree);
  EXPECT_EQ(unknown.link.kind, LinkKind::kPcieP2p);
  EXPECT_THAT(unknown.link.source, HasSubstr("unknown: nvml: not here"));
  const Rig staged = GpuRig(both, Two(false, false), TwentyFree);
  EXPECT_EQ(staged.link.kind, LinkKind::kHostStaged);
  EXPECT_EQ(staged.ResolvePath(PathKind::kAuto), PathKind::kHostStaged);
  EXPECT_EQ(staged.ResolvePath(PathKind::kNccl), PathKind::kNccl);
  ExpectRefusal(ErrorCode::kDevice, "path copy does not exist",
                [&] { staged.ResolvePath(PathKind::kCopy); });
  // One direction without access is no access.
  GpuInventory half = Two(true, true);
  half.peer_paths[1].access = false;
  EXPECT_EQ(GpuRig(both, half, TwentyFree).link.kind, LinkKind::kHostStaged);
}

TEST(GpuRigTest, ALibrarysRoomIsTakenFromWhatPlansMayUse) {
  const std::vector<int> with_cpu{0, Rig::kNotAGpu};
  const Rig rig = GpuRig(with_cpu, Two(true, true), TwentyFree);
  Rig less = rig;
  MakeRoomForProducts(less, PrefillProducts::kOwn);
  EXPECT_EQ(less.devices[0].memory, rig.devices[0].memory);
  MakeRoomForProducts(less, PrefillProducts::kCublasLt);
  EXPECT_EQ(less.devices[0].memory.value + LibraryRoom{}.bytes(), rig.devices[0].memory.value);
  EXPECT_EQ(less.devices[1].memory, rig.devices[1].memory) << "the host's processor";
  less.devices[0].memory = Bytes{5};
  MakeRoomForProducts(less, PrefillProducts::kCublasLt);
  EXPECT_EQ(less.devices[0].memory.value, 1u) << "zero would be unlimited";
  ExpectRefusal(ErrorCode::kUnsupported, "no device is one", [] {
    Rig cpus = ThisMachineRig(2);
    MakeRoomForProducts(cpus, PrefillProducts::kCublasLt);
  });
}

TEST(GpuRigTest, MemoryIsWhatIsFreeLessAReserve) {
  const Rig rig = GpuRig(std::vector<int>{0, 1}, Two(true, true), TwentyFree);
  EXPECT_EQ(rig.devices[0].memory.value, 20 * kGiB - kGpuReserve.value);
  EXPECT_EQ(rig.devices[0].memory_bytes_per_s, 936e9);
  const auto nothing = [](int) { return GpuMemory{Bytes{kGiB / 4}, Bytes{24 * kGiB}}; };
  EXPECT_EQ(GpuRig(std::vector<int>{0}, Two(true, true), nothing).devices[0].memory, Bytes{1})
      << "nothing usable is not unlimited";
}

// What a card is taken to do before anything is measured, against its maker's figures in the
// catalogue: GeForce cards do half of what their chips do elsewhere.
TEST(GpuRigTest, NominalRatesAreThoseOfTheCatalogue) {
  struct Card {
    const char* rig;
    const char* name;
    int major, minor, sms;
    double clock_hz;
  };
  const Catalogue catalogue({"scenarios"});
  for (const Card& card : {Card{"1x3090", "NVIDIA GeForce RTX 3090", 8, 6, 82, 1.695e9},
                           Card{"1x4090", "NVIDIA GeForce RTX 4090", 8, 9, 128, 2.52e9},
                           Card{"2x5090", "NVIDIA GeForce RTX 5090", 12, 0, 170, 2.407e9},
                           Card{"2xa6000-pcie", "NVIDIA RTX A6000", 8, 6, 84, 1.8e9},
                           Card{"2x6000ada", "NVIDIA RTX 6000 Ada Generation", 8, 9, 142, 2.505e9},
                           Card{"2xl40s", "NVIDIA L40S", 8, 9, 142, 2.52e9},
                           Card{"2xpro6000", "NVIDIA RTX PRO 6000 Blackwell", 12, 0, 188, 2.617e9},
                           Card{"2xa100-80-sxm", "NVIDIA A100-SXM4-80GB", 8, 0, 108, 1.41e9},
                           Card{"2xh100-sxm", "NVIDIA H100 80GB HBM3", 9, 0, 132, 1.83e9}}) {
    GpuInventory found = Two(true, true);
    found.gpus[0] = Gpu(0, card.major, card.minor);
    found.gpus[0].name = card.name;
    found.gpus[0].sm_count = card.sms;
    found.gpus[0].clock_hz = card.clock_hz;
    const double got = GpuRig(std::vector<int>{0}, found, TwentyFree).devices[0].flops;
    const double want = catalogue.LoadRig(card.rig).devices[0].flops;
    EXPECT_NEAR(got / want, 1, 0.02) << card.name;
  }
}

TEST(GpuRigTest, OneGpuAsTwoIsHalvedAndSaysSo) {
  const Rig rig = GpuRig(std::vector<int>{0, 0}, Two(true, true), TwentyFree);
  ASSERT_EQ(rig.size(), 2u);
  EXPECT_TRUE(rig.SharesAGpu());
  EXPECT_EQ(rig.devices[1].memory.value, (20 * kGiB - kGpuReserve.value) / 2);
  EXPECT_EQ(rig.devices[1].memory_bytes_per_s, 936e9 / 2);
  EXPECT_EQ(rig.link.name, "one-gpu");
  EXPECT_THAT(rig.description, HasSubstr("one GPU standing for several"));
}

Rig Described(const std::string& first, const std::string& second) {
  Rig rig = GpuRig(std::vector<int>{0, 1}, Two(true, true), TwentyFree);
  rig.name = "probed";
  rig.gpus.clear();
  rig.is_this_machine = false;
  rig.devices[0].name = first;
  rig.devices[1].name = second;
  for (DeviceSpec& device : rig.devices) device.memory_bytes_per_s = 870e9;
  rig.devices[1].memory = Bytes{kGiB};
  rig.link.name = "measured";
  return rig;
}

TEST(RigOnGpusTest, RatesAreTheFilesAndMemoryIsWhatBothHave) {
  const std::vector<int> both{0, 1};
  const Rig rig = RigOnGpus(Described("GPU 0", "NVIDIA GPU 1"), both, Two(true, true), TwentyFree);
  EXPECT_EQ(rig.name, "probed");
  EXPECT_THAT(rig.gpus, ElementsAre(0, 1));
  EXPECT_TRUE(rig.is_this_machine);
  EXPECT_EQ(rig.devices[0].memory_bytes_per_s, 870e9);
  EXPECT_EQ(rig.devices[0].memory.value, 20 * kGiB - kGpuReserve.value);
  EXPECT_EQ(rig.devices[1].memory, Bytes{kGiB});
  EXPECT_EQ(rig.link.name, "measured");
  EXPECT_EQ(
      RigOnGpus(Described("GPU 0", "x"), std::vector<int>{0}, Two(true, true), TwentyFree).size(),
      1u);
}

TEST(RigOnGpusTest, RefusesOtherCardsThanTheFileNames) {
  const std::vector<int> both{0, 1};
  ExpectRefusal(
      ErrorCode::kInvalidArgument, "device 1 of rig probed is a RTX 3090, but cuda:1 is a GPU 1",
      [&] { RigOnGpus(Described("GPU 0", "RTX 3090"), both, Two(true, true), TwentyFree); });
  ExpectRefusal(ErrorCode::kInvalidArgument, "cuda:0 is a GPU 0",
                [&] { RigOnGpus(Described("GPU", "GPU 1"), both, Two(true, true), TwentyFree); });
  ExpectRefusal(ErrorCode::kInvalidArgument, "has 2 devices, not 3", [&] {
    RigOnGpus(Described("GPU 0", "GPU 1"), std::vector<int>{0, 1, 0}, Two(true, true), TwentyFree);
  });
  ExpectRefusal(ErrorCode::kInvalidArgument, "no cuda:7", [&] {
    RigOnGpus(Described("GPU 0", "GPU 1"), std::vector<int>{0, 7}, Two(true, true), TwentyFree);
  });
}

}  // namespace
}  // namespace tandem
