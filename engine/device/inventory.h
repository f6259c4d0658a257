// The GPUs that this process can reach, as the driver names them. A machine without a driver, or a
// binary built without CUDA, has none, and that is a message rather than an error: everything else
// runs on the CPU.
//
// Implemented by cuda/inventory.cc, or by no_cuda.cc when CMake found no toolkit.
//
//   GpuInventory found = FindGpus();
//   for (const GpuInfo& gpu : found.gpus) ...
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/units.h"

namespace tandem {

struct GpuInfo {
  int index = 0;  // the CUDA runtime's number, after CUDA_VISIBLE_DEVICES
  std::string name;
  Bytes total_memory;
  int sm_count = 0;
  int compute_major = 0;  // compute capability, 9.0 for an H100
  int compute_minor = 0;
  std::string pci_bus_id;  // "0000:01:00.0"
  // Peak rates as the driver's attributes give them; zero where it does not say.
  double memory_bytes_per_s = 0;
  double clock_hz = 0;
};

// What the driver says of the direct path from one GPU to another. Granted access is no promise
// that bytes arrive right: the link self-test decides that.
struct GpuPeerPath {
  int from = 0;
  int to = 0;
  bool access = false;
  bool native_atomics = false;
  int performance_rank = 0;  // lower is better, comparable within one machine only
  // Whether NVLinks that are up join the two, as NVML sees it; empty: it does not say, and why.
  std::optional<bool> nvlink;
  std::string nvlink_why;
};

struct GpuInventory {
  bool built_with_cuda = false;
  // Why there are no GPUs, or with which driver they were found. One line, never empty.
  std::string driver_message;
  // 13000 for CUDA 13.0: what the driver was made for, and what this binary was. Zero: none.
  int driver_version = 0;
  int runtime_version = 0;
  // Versions of the libraries found, "cudart 13.0", ...; empty without CUDA.
  std::vector<std::string> libraries;
  std::vector<GpuInfo> gpus;
  std::vector<GpuPeerPath> peer_paths;  // every ordered pair of distinct GPUs
};

// Never throws for a missing driver, device or library. Any thread.
GpuInventory FindGpus();

}  // namespace tandem
