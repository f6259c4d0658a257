#include "engine/device/cuda/nvml.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <map>

#include "engine/device/cuda/nvml_abi.h"

namespace tandem {
namespace {

constexpr const char* kLibrary = "libnvidia-ml.so.1";

nvml::Functions Load(const NvmlSymbols& symbols) {
  nvml::Functions f;
  const auto load = [&](auto& function, const char* name) {
    void* symbol = symbols(name);
    std::memcpy(&function, &symbol, sizeof(symbol));
  };
  load(f.Init, "nvmlInit_v2");
  load(f.Shutdown, "nvmlShutdown");
  load(f.ErrorString, "nvmlErrorString");
  load(f.SystemGetDriverVersion, "nvmlSystemGetDriverVersion");
  load(f.DeviceGetHandleByPciBusId, "nvmlDeviceGetHandleByPciBusId_v2");
  load(f.DeviceGetCurrPcieLinkGeneration, "nvmlDeviceGetCurrPcieLinkGeneration");
  load(f.DeviceGetCurrPcieLinkWidth, "nvmlDeviceGetCurrPcieLinkWidth");
  load(f.DeviceGetMaxPcieLinkGeneration, "nvmlDeviceGetMaxPcieLinkGeneration");
  load(f.DeviceGetMaxPcieLinkWidth, "nvmlDeviceGetMaxPcieLinkWidth");
  load(f.DeviceGetClockInfo, "nvmlDeviceGetClockInfo");
  load(f.DeviceGetMaxClockInfo, "nvmlDeviceGetMaxClockInfo");
  load(f.DeviceGetPowerUsage, "nvmlDeviceGetPowerUsage");
  load(f.DeviceGetEnforcedPowerLimit, "nvmlDeviceGetEnforcedPowerLimit");
  load(f.DeviceGetPowerManagementDefaultLimit, "nvmlDeviceGetPowerManagementDefaultLimit");
  load(f.DeviceGetNvLinkState, "nvmlDeviceGetNvLinkState");
  load(f.DeviceGetNvLinkVersion, "nvmlDeviceGetNvLinkVersion");
  load(f.DeviceGetNvLinkRemoteDeviceType, "nvmlDeviceGetNvLinkRemoteDeviceType");
  load(f.DeviceGetNvLinkRemotePciInfo, "nvmlDeviceGetNvLinkRemotePciInfo_v2");
  load(f.DeviceGetFieldValues, "nvmlDeviceGetFieldValues");
  load(f.DeviceGetTopologyCommonAncestor, "nvmlDeviceGetTopologyCommonAncestor");
  return f;
}

// nvmlNvlinkVersion_t.
std::string VersionText(uint32_t version) {
  constexpr std::array kVersions{"", "1.0", "2.0", "2.2", "3.0", "3.1", "4.0", "5.0", "6.0"};
  return version < kVersions.size() ? kVersions[version] : fmt::format("number {}", version);
}

// Both "0000:01:00.0" and "00000000:01:00.0" are in use, in either case of letters.
std::string CanonicalBusId(const std::string& id) {
  const size_t colon = id.find(':');
  std::string text = colon == std::string::npos ? id : id.substr(id.find_first_not_of('0'));
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

class NvmlMonitor final : public GpuMonitor {
 public:
  NvmlMonitor(const NvmlSymbols& symbols, const std::string& missing) : missing_(missing) {
    if (!symbols) return;
    f_ = Load(symbols);
    if (f_.Init == nullptr || f_.DeviceGetHandleByPciBusId == nullptr) {
      missing_ = fmt::format("nvml: {} is no library that tandem knows", kLibrary);
      return;
    }
    const nvml::Status status = f_.Init();
    missing_ = status == nvml::kSuccess ? "" : Why("nvmlInit_v2", status);
    open_ = status == nvml::kSuccess;
  }
  ~NvmlMonitor() override {
    if (open_ && f_.Shutdown != nullptr) f_.Shutdown();
  }
  NvmlMonitor(const NvmlMonitor&) = delete;
  NvmlMonitor& operator=(const NvmlMonitor&) = delete;

  Reading<std::string> DriverVersion() override {
    using Text = Reading<std::string>;
    if (!open_) return Text::Missing(missing_);
    if (f_.SystemGetDriverVersion == nullptr) return Text::Missing(Lacks("driver version"));
    std::array<char, 96> text{};
    const nvml::Status status =
        f_.SystemGetDriverVersion(text.data(), static_cast<uint32_t>(text.size() - 1));
    if (status != nvml::kSuccess) return Text::Missing(Why("driver version", status));
    return std::string(text.data());
  }

  GpuState State(const std::string& gpu) override {
    const auto number = [&](auto function, const char* what) {
      return Ask(gpu, function, what,
                 [&](nvml::Device device, uint32_t* out) { return function(device, out); });
    };
    const auto clock = [&](auto function, nvml::Clock which, const char* what) {
      return Ask(gpu, function, what,
                 [&](nvml::Device device, uint32_t* out) { return function(device, which, out); });
    };
    const auto watts = [&](auto function, const char* what) {
      const Reading<uint32_t> milliwatts = number(function, what);
      return milliwatts ? Reading<double>(*milliwatts / 1e3)
                        : Reading<double>::Missing(milliwatts.why());
    };
    return GpuState{
        .pcie_generation = number(f_.DeviceGetCurrPcieLinkGeneration, "PCIe generation"),
        .pcie_width = number(f_.DeviceGetCurrPcieLinkWidth, "PCIe width"),
        .pcie_max_generation = number(f_.DeviceGetMaxPcieLinkGeneration, "most PCIe generation"),
        .pcie_max_width = number(f_.DeviceGetMaxPcieLinkWidth, "most PCIe width"),
        .sm_mhz = clock(f_.DeviceGetClockInfo, nvml::kClockSm, "SM clock"),
        .memory_mhz = clock(f_.DeviceGetClockInfo, nvml::kClockMemory, "memory clock"),
        .max_sm_mhz = clock(f_.DeviceGetMaxClockInfo, nvml::kClockSm, "most SM clock"),
        .max_memory_mhz = clock(f_.DeviceGetMaxClockInfo, nvml::kClockMemory, "most memory clock"),
        .power_watts = watts(f_.DeviceGetPowerUsage, "power"),
        .power_limit_watts = watts(f_.DeviceGetEnforcedPowerLimit, "power limit"),
        .default_power_limit_watts =
            watts(f_.DeviceGetPowerManagementDefaultLimit, "default power limit")};
  }

  Reading<std::vector<NvlinkEnd>> Nvlinks(const std::string& gpu) override {
    using Ends = Reading<std::vector<NvlinkEnd>>;
    const Reading<nvml::Device> device = Find(gpu);
    if (!device) return Ends::Missing(device.why());
    if (f_.DeviceGetNvLinkState == nullptr) return Ends::Missing(Lacks("NVLink state"));
    std::vector<NvlinkEnd> ends;
    for (uint32_t link = 0; link < nvml::kMostLinks; ++link) {
      int32_t active = 0;
      const nvml::Status status = f_.DeviceGetNvLinkState(*device, link, &active);
      // A GPU without NVLink says "not supported", of a link beyond its last "invalid argument".
      if (status == kNotSupported || status == kInvalidArgument) break;
      if (status != nvml::kSuccess) return Ends::Missing(Why("NVLink state", status));
      if (active != 0) ends.push_back(ReadEnd(*device, link));
    }
    return ends;
  }

  Reading<uint64_t> Count(const std::string& gpu, GpuCounter counter) override {
    using Number = Reading<uint64_t>;
    const Reading<nvml::Device> device = Find(gpu);
    if (!device) return Number::Missing(device.why());
    if (f_.DeviceGetFieldValues == nullptr) return Number::Missing(Lacks(ToString(counter)));
    const bool nvlink =
        counter == GpuCounter::kNvlinkSent || counter == GpuCounter::kNvlinkReceived;
    nvml::FieldValue value;
    value.field = FieldOf(counter);
    value.scope = nvlink ? nvml::kAllLinks : 0;
    nvml::Status status = f_.DeviceGetFieldValues(*device, 1, &value);
    if (status == nvml::kSuccess) status = value.status;
    if (status != nvml::kSuccess) return Number::Missing(Why(ToString(counter), status));
    const Reading<uint64_t> number = Whole(value, ToString(counter));
    if (!number || !nvlink) return number;
    return *number * 1024;
  }

  Reading<std::string> CommonAncestor(const std::string& a, const std::string& b) override {
    using Text = Reading<std::string>;
    const Reading<nvml::Device> first = Find(a), second = Find(b);
    if (!first) return Text::Missing(first.why());
    if (!second) return Text::Missing(second.why());
    if (f_.DeviceGetTopologyCommonAncestor == nullptr) return Text::Missing(Lacks("topology"));
    int32_t level = 0;
    const nvml::Status status = f_.DeviceGetTopologyCommonAncestor(*first, *second, &level);
    if (status != nvml::kSuccess) return Text::Missing(Why("topology", status));
    // nvmlGpuTopologyLevel_t.
    static const std::map<int32_t, std::string> kLevels{{0, "one board"},      {10, "PCIe switch"},
                                                        {20, "PCIe switches"}, {30, "host bridge"},
                                                        {40, "NUMA node"},     {50, "system"}};
    const auto known = kLevels.find(level);
    return known != kLevels.end() ? known->second : fmt::format("level {}", level);
  }

 private:
  static constexpr nvml::Status kInvalidArgument = 2;
  static constexpr nvml::Status kNotSupported = 3;

  static uint32_t FieldOf(GpuCounter counter) {
    switch (counter) {
      case GpuCounter::kNvlinkSent:
        return nvml::kFieldNvlinkTx;
      case GpuCounter::kNvlinkReceived:
        return nvml::kFieldNvlinkRx;
      case GpuCounter::kPcieSent:
        return nvml::kFieldPcieTx;
      case GpuCounter::kPcieReceived:
        return nvml::kFieldPcieRx;
    }
    return 0;
  }

  static Reading<uint64_t> Whole(const nvml::FieldValue& value, const std::string& what) {
    switch (value.type) {
      case nvml::kUnsignedInt:
        return uint64_t{value.value.u32};
      case nvml::kUnsignedLong:
      case nvml::kUnsignedLongLong:
        return value.value.u64;
      case nvml::kSignedLongLong:
        if (value.value.i64 >= 0) return static_cast<uint64_t>(value.value.i64);
        break;
      default:
        break;
    }
    return Reading<uint64_t>::Missing(
        fmt::format("nvml: {}: got a value of type {} (want a count)", what, value.type));
  }

  std::string Why(const char* what, nvml::Status status) const {
    const char* text = f_.ErrorString != nullptr ? f_.ErrorString(status) : nullptr;
    return fmt::format("nvml: {}: {}", what,
                       text != nullptr ? text : fmt::format("error {}", status));
  }
  static std::string Lacks(const char* what) {
    return fmt::format("nvml: {}: this driver's library is too old for it", what);
  }

  Reading<nvml::Device> Find(const std::string& gpu) {
    using Found = Reading<nvml::Device>;
    if (!open_) return Found::Missing(missing_);
    nvml::Device device = nullptr;
    const nvml::Status status = f_.DeviceGetHandleByPciBusId(gpu.c_str(), &device);
    if (status != nvml::kSuccess) return Found::Missing(Why(gpu.c_str(), status));
    return device;
  }

  // One number of one GPU, by a function that may be missing.
  template <typename Function, typename Call>
  Reading<uint32_t> Ask(const std::string& gpu, Function function, const char* what,
                        const Call& call) {
    const Reading<nvml::Device> device = Find(gpu);
    if (!device) return Reading<uint32_t>::Missing(device.why());
    if (function == nullptr) return Reading<uint32_t>::Missing(Lacks(what));
    uint32_t number = 0;
    const nvml::Status status = call(*device, &number);
    if (status != nvml::kSuccess) return Reading<uint32_t>::Missing(Why(what, status));
    return number;
  }

  NvlinkEnd ReadEnd(nvml::Device device, uint32_t link) const {
    NvlinkEnd end{.link = link};
    uint32_t version = 0;
    if (f_.DeviceGetNvLinkVersion != nullptr &&
        f_.DeviceGetNvLinkVersion(device, link, &version) == nvml::kSuccess) {
      end.version = VersionText(version);
    }
    int32_t type = nvml::kRemoteGpu;
    if (f_.DeviceGetNvLinkRemoteDeviceType != nullptr &&
        f_.DeviceGetNvLinkRemoteDeviceType(device, link, &type) == nvml::kSuccess) {
      end.to_switch = type == nvml::kRemoteSwitch;
    }
    nvml::PciInfo remote{};
    if (!end.to_switch && f_.DeviceGetNvLinkRemotePciInfo != nullptr &&
        f_.DeviceGetNvLinkRemotePciInfo(device, link, &remote) == nvml::kSuccess) {
      end.remote_pci_bus_id.assign(remote.bus_id, strnlen(remote.bus_id, sizeof(remote.bus_id)));
    }
    return end;
  }

  nvml::Functions f_;
  bool open_ = false;
  std::string missing_;  // why nothing can be read
};

// Stays open for the process: other libraries hold it open as well.
void* OpenLibrary() {
  static void* const library = dlopen(kLibrary, RTLD_LAZY | RTLD_LOCAL);
  return library;
}

}  // namespace

const char* ToString(GpuCounter counter) {
  switch (counter) {
    case GpuCounter::kNvlinkSent:
      return "nvlink_sent";
    case GpuCounter::kNvlinkReceived:
      return "nvlink_received";
    case GpuCounter::kPcieSent:
      return "pcie_sent";
    case GpuCounter::kPcieReceived:
      return "pcie_received";
  }
  return "pcie_received";
}

std::unique_ptr<GpuMonitor> MakeNvmlMonitor(const NvmlSymbols& symbols,
                                            const std::string& missing) {
  return std::make_unique<NvmlMonitor>(symbols, missing);
}

std::unique_ptr<GpuMonitor> OpenGpuMonitor() {
  void* const library = OpenLibrary();
  NvmlSymbols symbols;
  if (library != nullptr) symbols = [library](const char* name) { return dlsym(library, name); };
  return MakeNvmlMonitor(
      symbols, fmt::format("nvml: {} is not here (it comes with NVIDIA's driver)", kLibrary));
}

Reading<bool> NvlinkJoins(GpuMonitor& monitor, const std::string& a, const std::string& b) {
  const auto from = monitor.Nvlinks(a), to = monitor.Nvlinks(b);
  if (!from) return Reading<bool>::Missing(from.why());
  if (!to) return Reading<bool>::Missing(to.why());
  const auto to_switch = [](const NvlinkEnd& end) { return end.to_switch; };
  const bool switched = std::any_of(from->begin(), from->end(), to_switch) &&
                        std::any_of(to->begin(), to->end(), to_switch);
  return switched || std::any_of(from->begin(), from->end(), [&](const NvlinkEnd& end) {
           return !end.remote_pci_bus_id.empty() &&
                  CanonicalBusId(end.remote_pci_bus_id) == CanonicalBusId(b);
         });
}

}  // namespace tandem
