// NVML as a library made up here: what it says, what it refuses, what an old one lacks, and what
// happens where there is none.
#include "engine/device/cuda/nvml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>

#include "engine/device/cuda/nvml_abi.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kFirst = "0000:01:00.0";
constexpr const char* kSecond = "0000:C1:00.0";

// The library's state; its functions are plain C, as the real one's.
struct FakeLibrary {
  nvml::Status init = 0;
  int shutdowns = 0;
  std::set<std::string> lacks;                  // functions that an old library has not
  std::map<std::string, nvml::Status> refuses;  // functions that return an error
  uint32_t links = 4;
  bool switched = false;
  uint32_t nvlink_version = 6;
  std::map<uint32_t, nvml::FieldValue> fields;
  uint32_t last_scope = 7;
};
FakeLibrary g_library;

nvml::Status StatusOf(const char* name) {
  const auto found = g_library.refuses.find(name);
  return found == g_library.refuses.end() ? nvml::kSuccess : found->second;
}

nvml::Status Init() { return g_library.init; }
nvml::Status Shutdown() {
  ++g_library.shutdowns;
  return 0;
}
const char* ErrorString(nvml::Status status) {
  return status == 3 ? "Not Supported" : status == 4 ? "Insufficient Permissions" : "Unknown Error";
}
nvml::Status DriverVersion(char* text, uint32_t size) {
  std::strncpy(text, "580.65.06", size);
  return StatusOf("nvmlSystemGetDriverVersion");
}
nvml::Status Handle(const char* id, nvml::Device* device) {
  if (std::strcmp(id, kFirst) != 0 && std::strcmp(id, kSecond) != 0) return 6;
  *device = reinterpret_cast<nvml::Device>(uintptr_t{1} + (std::strcmp(id, kSecond) == 0 ? 1 : 0));
  return 0;
}
template <uint32_t kValue>
nvml::Status Number(nvml::Device, uint32_t* out) {
  *out = kValue;
  return 0;
}
nvml::Status Power(nvml::Device, uint32_t* out) {
  *out = 412500;
  return StatusOf("nvmlDeviceGetPowerUsage");
}
nvml::Status Clock(nvml::Device, int32_t which, uint32_t* mhz) {
  *mhz = which == nvml::kClockSm ? 1980 : which == nvml::kClockMemory ? 3201 : 0;
  return 0;
}
nvml::Status LinkState(nvml::Device, uint32_t link, int32_t* active) {
  if (const nvml::Status status = StatusOf("nvmlDeviceGetNvLinkState")) return status;
  if (link >= g_library.links) return g_library.links == 0 ? 3 : 2;
  *active = link == 1 ? 0 : 1;  // one is down
  return 0;
}
nvml::Status LinkVersion(nvml::Device, uint32_t, uint32_t* version) {
  *version = g_library.nvlink_version;
  return 0;
}
nvml::Status RemoteType(nvml::Device, uint32_t, int32_t* type) {
  *type = g_library.switched ? nvml::kRemoteSwitch : nvml::kRemoteGpu;
  return 0;
}
nvml::Status RemotePci(nvml::Device device, uint32_t, nvml::PciInfo* pci) {
  // The other GPU, with the longer domain that NVML writes.
  const bool first = device == reinterpret_cast<nvml::Device>(uintptr_t{1});
  std::strcpy(pci->bus_id, first ? "00000000:C1:00.0" : "00000000:01:00.0");
  return 0;
}
nvml::Status FieldValues(nvml::Device, int32_t count, nvml::FieldValue* values) {
  for (int32_t i = 0; i < count; ++i) {
    g_library.last_scope = values[i].scope;
    const auto found = g_library.fields.find(values[i].field);
    if (found == g_library.fields.end()) {
      values[i].status = 3;
      continue;
    }
    values[i].type = found->second.type;
    values[i].status = found->second.status;
    values[i].value = found->second.value;
  }
  return StatusOf("nvmlDeviceGetFieldValues");
}
nvml::Status Ancestor(nvml::Device, nvml::Device, int32_t* level) {
  *level = 30;
  return 0;
}

template <typename Function>
void* Address(Function function) {
  void* address = nullptr;
  std::memcpy(&address, &function, sizeof(address));
  return address;
}

void* Symbol(const char* name) {
  static const std::map<std::string, void*> kSymbols{
      {"nvmlInit_v2", Address(Init)},
      {"nvmlShutdown", Address(Shutdown)},
      {"nvmlErrorString", Address(ErrorString)},
      {"nvmlSystemGetDriverVersion", Address(DriverVersion)},
      {"nvmlDeviceGetHandleByPciBusId_v2", Address(Handle)},
      {"nvmlDeviceGetCurrPcieLinkGeneration", Address(Number<4>)},
      {"nvmlDeviceGetCurrPcieLinkWidth", Address(Number<8>)},
      {"nvmlDeviceGetMaxPcieLinkGeneration", Address(Number<5>)},
      {"nvmlDeviceGetMaxPcieLinkWidth", Address(Number<16>)},
      {"nvmlDeviceGetClockInfo", Address(Clock)},
      {"nvmlDeviceGetMaxClockInfo", Address(Clock)},
      {"nvmlDeviceGetPowerUsage", Address(Power)},
      {"nvmlDeviceGetEnforcedPowerLimit", Address(Number<350000>)},
      {"nvmlDeviceGetPowerManagementDefaultLimit", Address(Number<700000>)},
      {"nvmlDeviceGetNvLinkState", Address(LinkState)},
      {"nvmlDeviceGetNvLinkVersion", Address(LinkVersion)},
      {"nvmlDeviceGetNvLinkRemoteDeviceType", Address(RemoteType)},
      {"nvmlDeviceGetNvLinkRemotePciInfo_v2", Address(RemotePci)},
      {"nvmlDeviceGetFieldValues", Address(FieldValues)},
      {"nvmlDeviceGetTopologyCommonAncestor", Address(Ancestor)}};
  if (g_library.lacks.count(name) != 0) return nullptr;
  const auto found = kSymbols.find(name);
  return found == kSymbols.end() ? nullptr : found->second;
}

class NvmlTest : public ::testing::Test {
 protected:
  void SetUp() override { g_library = FakeLibrary{}; }
  static std::unique_ptr<GpuMonitor> Monitor() { return MakeNvmlMonitor(Symbol, "unused"); }
  static void SetField(uint32_t field, int32_t type, uint64_t bits) {
    nvml::FieldValue value;
    value.type = type;
    value.value.u64 = bits;
    g_library.fields[field] = value;
  }
};

TEST_F(NvmlTest, ReadsTheStateOfAGpu) {
  const auto monitor = Monitor();
  EXPECT_EQ(*monitor->DriverVersion(), "580.65.06");
  const GpuState state = monitor->State(kFirst);
  EXPECT_EQ(*state.pcie_generation, 4u);
  EXPECT_EQ(*state.pcie_width, 8u);
  EXPECT_EQ(*state.pcie_max_generation, 5u);
  EXPECT_EQ(*state.pcie_max_width, 16u);
  EXPECT_EQ(*state.sm_mhz, 1980u);
  EXPECT_EQ(*state.memory_mhz, 3201u);
  EXPECT_EQ(*state.power_watts, 412.5);
  EXPECT_EQ(*state.power_limit_watts, 350);
  EXPECT_EQ(*state.default_power_limit_watts, 700);
  EXPECT_EQ(*monitor->CommonAncestor(kFirst, kSecond), "host bridge");
}

TEST_F(NvmlTest, ShutsDownWhatItOpened) {
  Monitor();
  EXPECT_EQ(g_library.shutdowns, 1);
  g_library.init = 9;
  Monitor();
  EXPECT_EQ(g_library.shutdowns, 1);
}

TEST_F(NvmlTest, WithoutTheLibraryEveryReadingSaysSo) {
  const auto monitor = MakeNvmlMonitor({}, "there is no library");
  EXPECT_EQ(monitor->DriverVersion().why(), "there is no library");
  EXPECT_EQ(monitor->State(kFirst).pcie_width.why(), "there is no library");
  EXPECT_EQ(monitor->Nvlinks(kFirst).why(), "there is no library");
  EXPECT_EQ(monitor->Count(kFirst, GpuCounter::kPcieSent).why(), "there is no library");
  EXPECT_EQ(monitor->CommonAncestor(kFirst, kSecond).why(), "there is no library");
  EXPECT_EQ(NvlinkJoins(*monitor, kFirst, kSecond).why(), "there is no library");
}

TEST_F(NvmlTest, ThisMachinesLibraryNeverThrows) {
  const auto monitor = OpenGpuMonitor();
  const auto version = monitor->DriverVersion();
  EXPECT_NE(bool{version}, !version.why().empty()) << "a value or a reason";
}

TEST_F(NvmlTest, ALibraryThatDoesNotOpenSaysWhy) {
  g_library.init = 4;
  EXPECT_THAT(Monitor()->State(kFirst).sm_mhz.why(),
              HasSubstr("nvmlInit_v2: Insufficient Permissions"));
  g_library.init = 0;
  g_library.lacks = {"nvmlInit_v2"};
  EXPECT_THAT(Monitor()->DriverVersion().why(), HasSubstr("no library that tandem knows"));
}

TEST_F(NvmlTest, OneMissingFunctionIsOneMissingReading) {
  g_library.lacks = {"nvmlDeviceGetCurrPcieLinkWidth", "nvmlDeviceGetFieldValues",
                     "nvmlDeviceGetNvLinkState", "nvmlErrorString"};
  g_library.refuses = {{"nvmlDeviceGetPowerUsage", 3}};
  const auto monitor = Monitor();
  const GpuState state = monitor->State(kFirst);
  EXPECT_THAT(state.pcie_width.why(), HasSubstr("PCIe width: this driver's library is too old"));
  EXPECT_EQ(*state.pcie_generation, 4u);
  EXPECT_THAT(state.power_watts.why(), HasSubstr("power: error 3")) << "without its word for it";
  EXPECT_THAT(monitor->Count(kFirst, GpuCounter::kPcieSent).why(), HasSubstr("pcie_sent"));
  EXPECT_THAT(NvlinkJoins(*monitor, kFirst, kSecond).why(), HasSubstr("NVLink state"));
}

TEST_F(NvmlTest, AnUnknownGpuIsAReason) {
  EXPECT_THAT(Monitor()->State("0000:99:00.0").sm_mhz.why(), HasSubstr("0000:99:00.0"));
}

TEST_F(NvmlTest, FindsTheLinksThatAreUp) {
  const auto monitor = Monitor();
  const auto links = monitor->Nvlinks(kFirst);
  ASSERT_TRUE(links) << links.why();
  ASSERT_EQ(links->size(), 3u) << "the one that is down is left out";
  EXPECT_EQ((*links)[1].link, 2u);
  EXPECT_EQ((*links)[0].version, "4.0");
  EXPECT_EQ((*links)[0].remote_pci_bus_id, "00000000:C1:00.0");
  EXPECT_TRUE(*NvlinkJoins(*monitor, kFirst, kSecond));
  EXPECT_TRUE(*NvlinkJoins(*monitor, kSecond, kFirst));
  g_library.nvlink_version = 77;
  EXPECT_EQ((*monitor->Nvlinks(kFirst))[0].version, "number 77");
}

TEST_F(NvmlTest, NoLinksOrLinksToOthersJoinNothing) {
  const auto monitor = Monitor();
  // A bridge to a third card: the other end is not this one.
  EXPECT_FALSE(*NvlinkJoins(*monitor, kFirst, kFirst));
  g_library.links = 0;
  EXPECT_THAT(*monitor->Nvlinks(kFirst), IsEmpty());
  EXPECT_FALSE(*NvlinkJoins(*monitor, kFirst, kSecond));
  g_library.refuses = {{"nvmlDeviceGetNvLinkState", 4}};
  EXPECT_THAT(monitor->Nvlinks(kFirst).why(), HasSubstr("Insufficient Permissions"));
}

TEST_F(NvmlTest, ASwitchJoinsAll) {
  g_library.switched = true;
  const auto monitor = Monitor();
  EXPECT_TRUE((*monitor->Nvlinks(kFirst))[0].to_switch);
  EXPECT_TRUE(*NvlinkJoins(*monitor, kFirst, kSecond));
}

TEST_F(NvmlTest, CountersAreBytes) {
  SetField(nvml::kFieldNvlinkTx, nvml::kUnsignedLongLong, uint64_t{5} << 30);
  SetField(nvml::kFieldNvlinkRx, nvml::kUnsignedLong, 7);
  SetField(nvml::kFieldPcieTx, nvml::kUnsignedInt, 0xfffffff0u);
  SetField(nvml::kFieldPcieRx, nvml::kSignedLongLong, 12);
  const auto monitor = Monitor();
  EXPECT_EQ(*monitor->Count(kFirst, GpuCounter::kNvlinkSent), uint64_t{5} << 40) << "KiB";
  EXPECT_EQ(g_library.last_scope, nvml::kAllLinks);
  EXPECT_EQ(*monitor->Count(kFirst, GpuCounter::kNvlinkReceived), 7u * 1024);
  EXPECT_EQ(*monitor->Count(kFirst, GpuCounter::kPcieSent), 0xfffffff0u);
  EXPECT_EQ(g_library.last_scope, 0u);
  EXPECT_EQ(*monitor->Count(kFirst, GpuCounter::kPcieReceived), 12u);
}

TEST_F(NvmlTest, CountersThatAreNotThereSayWhy) {
  const auto monitor = Monitor();
  EXPECT_THAT(monitor->Count(kFirst, GpuCounter::kNvlinkSent).why(),
              HasSubstr("nvlink_sent: Not Supported"));
  SetField(nvml::kFieldPcieTx, nvml::kDouble, 1);
  EXPECT_THAT(monitor->Count(kFirst, GpuCounter::kPcieSent).why(), HasSubstr("type 0"));
  SetField(nvml::kFieldPcieRx, nvml::kSignedLongLong, ~uint64_t{0});
  EXPECT_FALSE(monitor->Count(kFirst, GpuCounter::kPcieReceived));
  g_library.refuses = {{"nvmlDeviceGetFieldValues", 4}};
  EXPECT_THAT(monitor->Count(kFirst, GpuCounter::kPcieSent).why(),
              HasSubstr("Insufficient Permissions"));
}

}  // namespace
}  // namespace tandem
