#include "engine/run/gpu_rig.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/rig/measurements.h"
#include "kernels/cuda/library_room.h"

namespace tandem {
namespace {

constexpr int kOldestMajor = 8;  // compute capability of the oldest GPUs that kernels are built for

[[noreturn]] void BadList(const std::string& text, const std::string& want) {
  Fail(ErrorCode::kInvalidArgument, fmt::format("--devices: '{}' (want {})", text, want));
}

std::optional<uint32_t> ParseNumber(std::string_view text) {
  uint32_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::string VersionText(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// Dense bf16 multiply-adds with f32 sums, as operations, that one SM does a clock. GeForce cards do
// half of what their chips do on other cards, unless sums are f16.
double FlopsPerClock(const GpuInfo& gpu) {
  const double of_card = gpu.name.find("GeForce") != std::string::npos ? 512 : 1024;
  switch (gpu.compute_major) {
    case 8:
      return gpu.compute_minor == 0 ? 2048 : of_card;
    case 9:
      return 4096;
    case 10:
      return 8192;
    default:
      return of_card;
  }
}

void CheckDriver(const GpuInventory& found) {
  if (!found.built_with_cuda) {
    Fail(ErrorCode::kUnsupported,
         "devices: this tandem was built without CUDA (want nvcc of CUDA 13 when it is built: "
         "tools/quickstart brings it where a driver is); or name CPU devices: --devices 2");
  }
  if (found.driver_version == 0) {
    Fail(ErrorCode::kDevice,
         "devices: no NVIDIA driver is loaded on this machine (want one for CUDA " +
             VersionText(found.runtime_version) +
             "); install it, or name CPU devices: --devices 2");
  }
  // Within a major version old drivers run newer programs.
  if (found.driver_version / 1000 < found.runtime_version / 1000) {
    Fail(ErrorCode::kDevice,
         fmt::format(
             "devices: the driver is for CUDA {}, which is too old (want CUDA {} or later); "
             "update it, or build tandem with the driver's toolkit",
             VersionText(found.driver_version), VersionText(found.runtime_version / 1000 * 1000)));
  }
}

const GpuInfo& Find(int index, const GpuInventory& found) {
  for (const GpuInfo& gpu : found.gpus) {
    if (gpu.index != index) continue;
    if (gpu.compute_major < kOldestMajor) {
      Fail(ErrorCode::kUnsupported,
           fmt::format("devices: cuda:{} ({}) has compute capability {}.{} (want {}.0 or later)",
                       index, gpu.name, gpu.compute_major, gpu.compute_minor, kOldestMajor));
    }
    return gpu;
  }
  std::string have;
  for (const GpuInfo& gpu : found.gpus) {
    have += fmt::format("{}cuda:{} {}", have.empty() ? "" : ", ", gpu.index, gpu.name);
  }
  Fail(ErrorCode::kInvalidArgument,
       fmt::format("--devices: there is no cuda:{} (have: {}); see tandem rig show", index,
                   have.empty() ? found.driver_message : have));
}

// "RTX 3090" of "NVIDIA GeForce RTX 3090": drivers and rig files differ in what they put before.
std::string_view PlainName(std::string_view name) {
  for (const std::string_view maker : {"NVIDIA ", "GeForce "}) {
    if (name.starts_with(maker)) name.remove_prefix(maker.size());
  }
  return name;
}

// A link between GPUs that nobody has measured.
LinkProfile NominalLink(const std::string& name, LinkKind kind, double bytes_per_s,
                        double latency_s) {
  constexpr uint64_t kFar = uint64_t{1} << 30;
  LinkProfile link;
  link.name = name;
  link.kind = kind;
  link.source = "nominal, not probed";
  link.send.points = {
      TimePoint{Bytes{0}, NanosFromSeconds(latency_s)},
      TimePoint{Bytes{kFar},
                NanosFromSeconds(latency_s + static_cast<double>(kFar) / bytes_per_s)}};
  return link;
}

// The host's processor beside GPUs, with half of the memory. Rates of a desktop with two channels
// of DDR5, for what is not probed has to be something: a plan's choice between streaming and it
// hangs on them.
DeviceSpec CpuBesideGpus(Bytes host_memory) {
  DeviceSpec spec;
  spec.name = "CPU";
  spec.memory = Bytes{host_memory.value / 2};
  spec.memory_bytes_per_s = 80e9;
  spec.flops = 30e9 * std::max(1u, std::thread::hardware_concurrency());
  spec.launch_gap = Nanos{2000};
  spec.on_host = true;
  spec.source = "nominal, not probed";
  return spec;
}

// By what the driver grants for every ordered pair, and what NVML says joins them. Where it says
// nothing the link is taken for PCIe's, and the source tells.
LinkProfile LinkOf(std::span<const int> gpus, const GpuInventory& found) {
  bool access = true;
  bool nvlink = true;
  std::string unknown;
  bool apart = false;
  for (int from : gpus) {
    for (int to : gpus) {
      if (from == to) continue;
      apart = true;
      const auto path =
          std::find_if(found.peer_paths.begin(), found.peer_paths.end(),
                       [&](const GpuPeerPath& p) { return p.from == from && p.to == to; });
      access = access && path != found.peer_paths.end() && path->access;
      if (path == found.peer_paths.end()) continue;
      nvlink = nvlink && path->nvlink.value_or(false);
      if (!path->nvlink) unknown = path->nvlink_why;
    }
  }
  if (!apart) return NominalLink("one-gpu", LinkKind::kPcieP2p, 1e12, 3e-6);
  if (!access) return NominalLink("host-staged", LinkKind::kHostStaged, 10e9, 15e-6);
  if (nvlink) return NominalLink("nvlink", LinkKind::kNvlink, 50e9, 3e-6);
  LinkProfile pcie = NominalLink("pcie-p2p", LinkKind::kPcieP2p, 20e9, 3e-6);
  if (!unknown.empty()) pcie.source += "; whether NVLink joins the GPUs is unknown: " + unknown;
  return pcie;
}

}  // namespace

DeviceList ParseDeviceList(const std::string& text) {
  if (const std::optional<uint32_t> count = ParseNumber(text)) {
    if (*count < 1 || *count > kMaxDevices)
      BadList(text, fmt::format("1 to {} devices", kMaxDevices));
    return DeviceList{*count, {}};
  }
  const std::string want = "a count, or a list such as cpu:0,cpu:1, cuda:0,cuda:1 or cuda:0,cpu";
  DeviceList list;
  uint32_t cpus = 0;
  std::istringstream in(text);
  for (std::string name; std::getline(in, name, ',');) {
    ++list.count;
    if (name == "cpu" || (name.starts_with("cpu:") && ParseNumber(name.substr(4)))) {
      ++cpus;
      continue;
    }
    const std::optional<uint32_t> index =
        name.starts_with("cuda:") ? ParseNumber(name.substr(5)) : std::nullopt;
    if (!index || *index > 255) BadList(text, want);
    if (cpus > 0) BadList(text, "the CPU after all CUDA devices, such as cuda:0,cpu");
    list.gpus.push_back(static_cast<int>(*index));
  }
  if (list.count < 1 || list.count > kMaxDevices) BadList(text, want);
  if (cpus > 0 && !list.gpus.empty()) {
    if (cpus > 1) BadList(text, "the CPU once beside CUDA devices: it is one processor");
    list.gpus.push_back(Rig::kNotAGpu);
  }
  return list;
}

Rig GpuRig(std::span<const int> gpus, const GpuInventory& found,
           const std::function<GpuMemory(int)>& memory_of) {
  Check(!gpus.empty(), "gpu rig: no devices");
  CheckDriver(found);
  Rig rig = ThisMachineRig(1);
  rig.devices.clear();
  rig.gpus.assign(gpus.begin(), gpus.end());
  rig.name = "this-machine-gpus";
  const std::vector<int> cards(gpus.begin(), std::find(gpus.begin(), gpus.end(), Rig::kNotAGpu));
  Check(!cards.empty(), "gpu rig: a card before the CPU");
  for (int index : cards) {
    const GpuInfo& gpu = Find(index, found);
    const auto sharers = static_cast<uint64_t>(std::count(gpus.begin(), gpus.end(), index));
    const uint64_t free = memory_of(index).free.value;
    const uint64_t usable = free > kGpuReserve.value ? free - kGpuReserve.value : 0;
    DeviceSpec spec;
    spec.name = gpu.name;
    spec.memory = Bytes{std::max<uint64_t>(usable / sharers, 1)};  // zero would be unlimited
    spec.memory_bytes_per_s = gpu.memory_bytes_per_s > 0 ? gpu.memory_bytes_per_s : 5e11;
    spec.flops = gpu.sm_count * gpu.clock_hz * FlopsPerClock(gpu);
    if (spec.flops <= 0) spec.flops = 5e13;
    spec.memory_bytes_per_s /= static_cast<double>(sharers);
    spec.flops /= static_cast<double>(sharers);
    spec.launch_gap = Nanos{3000};
    spec.source = "nominal, from the driver's attributes, not probed";
    rig.devices.push_back(spec);
  }
  if (cards.size() < gpus.size()) {
    rig.devices.push_back(CpuBesideGpus(rig.host_memory));
    rig.host_memory = rig.host_memory - rig.devices.back().memory;
  }
  rig.link = LinkOf(cards, found);
  rig.host_link = NominalLink("pcie", LinkKind::kHost, 20e9, 10e-6);
  rig.description = fmt::format("{} of this machine{}", rig.devices[0].name,
                                rig.SharesAGpu() ? ", one GPU standing for several devices" : "");
  return rig;
}

Rig RigOnGpus(const Rig& described, std::span<const int> gpus, const GpuInventory& found,
              const std::function<GpuMemory(int)>& memory_of) {
  Rig rig = GpuRig(gpus, found, memory_of);
  if (described.size() < rig.size()) {
    Fail(ErrorCode::kInvalidArgument, fmt::format("--devices: rig {} has {} devices, not {}",
                                                  described.name, described.size(), rig.size()));
  }
  for (size_t d = 0; d < rig.size(); ++d) {
    const std::string& wanted = described.devices[d].name;
    const std::string here = rig.devices[d].name;
    if (PlainName(wanted) != PlainName(here)) {
      Fail(ErrorCode::kInvalidArgument,
           fmt::format(
               "--rig: device {} of rig {} is a {}, but cuda:{} is a {} (want the cards that "
               "the rig was measured on); leave out --devices to emulate that rig, or --rig "
               "to use the GPUs that are here",
               d, described.name, wanted, gpus[d], here));
    }
    const Bytes memory = std::min(rig.devices[d].memory, described.devices[d].memory);
    rig.devices[d] = described.devices[d];
    rig.devices[d].memory = memory;
  }
  rig.name = described.name;
  rig.description = described.description;
  rig.link = described.link;
  rig.host_link = described.host_link;
  rig.measured = described.measured;
  return rig;
}

bool IsGpu(const Rig& rig, size_t device) {
  if (!rig.gpus.empty()) return device < rig.gpus.size() && rig.gpus[device] != Rig::kNotAGpu;
  if (rig.is_this_machine || rig.devices.at(device).on_host) return false;
  return rig.measured == nullptr || rig.measured->devices.starts_with("cuda:");
}

namespace {

[[noreturn]] void RefuseProducts(PrefillProducts products) {
  Fail(
      ErrorCode::kUnsupported,
      fmt::format("engine: --prefill-products {} is for GPUs, and no device is one (want --devices "
                  "cuda:0, or --prefill-products own)",
                  ToString(products)));
}

}  // namespace

void CheckProducts(const Rig& rig, PrefillProducts products) {
  if (products == PrefillProducts::kOwn) return;
  const bool any =
      std::any_of(rig.gpus.begin(), rig.gpus.end(), [](int gpu) { return gpu != Rig::kNotAGpu; });
  if (!any) RefuseProducts(products);
}

void MakeRoomForProducts(Rig& rig, PrefillProducts products) {
  if (products == PrefillProducts::kOwn) return;
  const Bytes room{LibraryRoom{}.bytes()};
  bool any = false;
  for (size_t d = 0; d < rig.devices.size(); ++d) {
    if (!IsGpu(rig, d)) continue;
    any = true;
    Bytes& memory = rig.devices[d].memory;
    memory = memory > room ? memory - room : Bytes{1};  // zero would be unlimited
  }
  if (!any) RefuseProducts(products);
}

}  // namespace tandem
