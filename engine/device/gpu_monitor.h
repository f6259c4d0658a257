// What the driver's management library (NVML) says of GPUs beyond what CUDA tells: the links
// between them, the PCIe slot, clocks and power, counters of bytes. Every answer may be missing (no
// driver, an older one, a GPU without the counter, no permission): a Reading holds the value or the
// reason, and nothing here throws.
//
// GPUs are named by their PCI bus id ("0000:01:00.0", GpuInfo::pci_bus_id). One thread.
//
//   std::unique_ptr<GpuMonitor> monitor = OpenGpuMonitor();
//   Reading<uint64_t> sent = monitor->Count("0000:01:00.0", GpuCounter::kNvlinkSent);
//   if (!sent) ... sent.why() ...
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tandem {

template <typename T>
class Reading {
 public:
  Reading() : why_("not asked") {}
  Reading(T value) : value_(std::move(value)) {}  // NOLINT: a value is a reading
  static Reading Missing(std::string why) {
    Reading reading;
    reading.why_ = std::move(why);
    return reading;
  }
  explicit operator bool() const { return value_.has_value(); }
  const T& operator*() const { return *value_; }
  const T* operator->() const { return &*value_; }
  const std::string& why() const { return why_; }  // empty where there is a value

 private:
  std::optional<T> value_;
  std::string why_;
};

// Cumulative counts of bytes since some moment before.
enum class GpuCounter : uint8_t {
  kNvlinkSent,  // payload over all NVLinks of the GPU, counted in KiB
  kNvlinkReceived,
  kPcieSent,  // by the GPU, with the headers of packets; wraps at 2^32
  kPcieReceived,
};
const char* ToString(GpuCounter counter);  // "nvlink_sent", ...

struct NvlinkEnd {
  uint32_t link = 0;
  std::string version;  // "4.0"; empty: not said
  bool to_switch = false;
  std::string remote_pci_bus_id;  // of a GPU at the other end; empty: not said
};

// What a GPU is doing at the moment: read it under load, for idle GPUs lower clocks and slot alike.
struct GpuState {
  Reading<uint32_t> pcie_generation, pcie_width, pcie_max_generation, pcie_max_width;
  Reading<uint32_t> sm_mhz, memory_mhz, max_sm_mhz, max_memory_mhz;
  Reading<double> power_watts, power_limit_watts, default_power_limit_watts;
};

class GpuMonitor {
 public:
  virtual ~GpuMonitor() = default;
  virtual Reading<std::string> DriverVersion() = 0;  // "580.65.06"
  virtual GpuState State(const std::string& gpu) = 0;
  // The links that are up. Empty: the GPU has none.
  virtual Reading<std::vector<NvlinkEnd>> Nvlinks(const std::string& gpu) = 0;
  virtual Reading<uint64_t> Count(const std::string& gpu, GpuCounter counter) = 0;
  // The nearest thing that two GPUs' PCIe paths share: "PCIe switch", "PCIe switches",
  // "host bridge", "NUMA node", "system".
  virtual Reading<std::string> CommonAncestor(const std::string& a, const std::string& b) = 0;
};

// NVML as this machine has it. Never null: where the library is missing every reading says so.
std::unique_ptr<GpuMonitor> OpenGpuMonitor();

// Whether NVLinks that are up join the two: end to end, or both to switches.
Reading<bool> NvlinkJoins(GpuMonitor& monitor, const std::string& a, const std::string& b);

}  // namespace tandem
