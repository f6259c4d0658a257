#include "engine/lab/machine_facts.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/lab/record.h"

namespace tandem {
namespace {

template <typename T>
MachineFact Fact(const std::string& of, const std::string& what, const Reading<T>& reading,
                 const char* unit = "") {
  if (!reading) return {of, what, "", reading.why()};
  return {of, what, fmt::format("{}{}", *reading, unit), ""};
}

const GpuInfo* Find(const GpuInventory& found, int index) {
  for (const GpuInfo& gpu : found.gpus) {
    if (gpu.index == index) return &gpu;
  }
  return nullptr;
}

const char* YesNo(bool yes) { return yes ? "yes" : "no"; }

std::string LinkText(const std::vector<NvlinkEnd>& ends) {
  if (ends.empty()) return "none is up";
  const NvlinkEnd& first = ends.front();
  const auto to_switch = static_cast<size_t>(
      std::count_if(ends.begin(), ends.end(), [](const NvlinkEnd& end) { return end.to_switch; }));
  return fmt::format("{} up{}{}", ends.size(),
                     first.version.empty() ? "" : ", version " + first.version,
                     to_switch == ends.size()          ? ", to a switch"
                     : to_switch > 0                   ? ", some to a switch"
                     : first.remote_pci_bus_id.empty() ? ""
                                                       : ", to " + first.remote_pci_bus_id);
}

}  // namespace

std::vector<MachineFact> FactsOfMachine(const GpuInventory& found, GpuMonitor* monitor) {
  std::vector<MachineFact> facts;
  const nlohmann::json machine = MachineFacts();
  for (const auto& [key, value] : machine.items()) {
    facts.push_back(
        {"machine", key, value.is_string() ? value.get<std::string>() : value.dump(), ""});
  }
  if (monitor == nullptr) return facts;
  facts.push_back({"machine", "CUDA", found.driver_message, ""});
  facts.push_back(Fact("machine", "driver version", monitor->DriverVersion()));
  for (const std::string& library : found.libraries) {
    facts.push_back({"machine", "library", library, ""});
  }
  return facts;
}

std::vector<std::string> BusIds(const GpuInventory& found, const std::vector<int>& gpus) {
  std::vector<std::string> ids;
  for (int index : gpus) {
    const GpuInfo* gpu = Find(found, index);
    ids.push_back(gpu != nullptr ? gpu->pci_bus_id : "");
  }
  return ids;
}

std::vector<MachineFact> FactsOfGpus(const GpuInventory& found, const std::vector<int>& gpus,
                                     GpuMonitor& monitor) {
  std::vector<MachineFact> facts;
  for (size_t d = 0; d < gpus.size(); ++d) {
    const GpuInfo* gpu = Find(found, gpus[d]);
    if (gpu == nullptr) continue;
    const std::string of = fmt::format("d{}", d);
    facts.push_back(
        {of, "GPU",
         fmt::format("cuda:{} {}, compute capability {}.{}, {} SMs, at {}", gpu->index, gpu->name,
                     gpu->compute_major, gpu->compute_minor, gpu->sm_count, gpu->pci_bus_id),
         ""});
    const GpuState state = monitor.State(gpu->pci_bus_id);
    facts.push_back(Fact(of, "power limit", state.power_limit_watts, " W"));
    facts.push_back(Fact(of, "default power limit", state.default_power_limit_watts, " W"));
    facts.push_back(Fact(of, "most SM clock", state.max_sm_mhz, " MHz"));
    facts.push_back(Fact(of, "most memory clock", state.max_memory_mhz, " MHz"));
    facts.push_back(Fact(of, "most PCIe generation", state.pcie_max_generation));
    facts.push_back(Fact(of, "most PCIe width", state.pcie_max_width));
    const auto links = monitor.Nvlinks(gpu->pci_bus_id);
    facts.push_back(links ? MachineFact{of, "NVLink", LinkText(*links), ""}
                          : MachineFact{of, "NVLink", "", links.why()});
  }
  const std::vector<std::string> ids = BusIds(found, gpus);
  for (const GpuPeerPath& path : found.peer_paths) {
    const auto from = std::find(gpus.begin(), gpus.end(), path.from);
    const auto to = std::find(gpus.begin(), gpus.end(), path.to);
    if (from == gpus.end() || to == gpus.end()) continue;
    const auto src = static_cast<size_t>(from - gpus.begin());
    const auto dst = static_cast<size_t>(to - gpus.begin());
    const std::string of = fmt::format("d{} to d{}", src, dst);
    facts.push_back({of, "peer access", YesNo(path.access), ""});
    facts.push_back({of, "native atomics", YesNo(path.native_atomics), ""});
    facts.push_back({of, "performance rank", std::to_string(path.performance_rank), ""});
    facts.push_back(path.nvlink ? MachineFact{of, "joined by NVLink", YesNo(*path.nvlink), ""}
                                : MachineFact{of, "joined by NVLink", "", path.nvlink_why});
    facts.push_back(Fact(of, "PCIe paths meet at", monitor.CommonAncestor(ids[src], ids[dst])));
  }
  return facts;
}

std::vector<MachineFact> SlotFacts(const std::string& of, const GpuState& under_load) {
  return {Fact(of, "PCIe generation under load", under_load.pcie_generation),
          Fact(of, "PCIe width under load", under_load.pcie_width)};
}

std::vector<MachineFact> ClockFacts(const std::string& of, const GpuState& under_load) {
  return {Fact(of, "SM clock under load", under_load.sm_mhz, " MHz"),
          Fact(of, "memory clock under load", under_load.memory_mhz, " MHz"),
          Fact(of, "power under load", under_load.power_watts, " W")};
}

}  // namespace tandem
