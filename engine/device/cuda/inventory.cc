// The inventory through the CUDA runtime. Runs where no driver is: the runtime library then reports
// an error code, which becomes the message.
#include "engine/device/inventory.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <library_types.h>

#include <array>
#include <memory>

#include "engine/device/cuda/nccl_version.h"
#include "engine/device/gpu_monitor.h"

namespace tandem {
namespace {

std::string VersionText(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// Asked of the library as it is found, not linked in: every process, on the CPU too, would pay for
// its large relocated tables, and a build needs not have it. "" where it is missing.
std::string ReadCublasVersion() {
  using GetProperty = int (*)(libraryPropertyType, int*);  // cublasGetProperty; 0 is success
  const std::string name = fmt::format("libcublas.so.{}", CUDART_VERSION / 1000);
  void* library = dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) return "";
  const auto get = reinterpret_cast<GetProperty>(dlsym(library, "cublasGetProperty"));
  int major = 0, minor = 0;
  const bool known =
      get != nullptr && get(MAJOR_VERSION, &major) == 0 && get(MINOR_VERSION, &minor) == 0;
  dlclose(library);
  return known ? fmt::format("{}.{}", major, minor) : "";
}

// Read once: loading it takes long, and a process finds the same one each time.
const std::string& CublasVersion() {
  static const std::string version = ReadCublasVersion();
  return version;
}

std::vector<std::string> LibraryVersions() {
  std::vector<std::string> libraries;
  int runtime = 0;
  if (cudaRuntimeGetVersion(&runtime) == cudaSuccess) {
    libraries.push_back("cudart " + VersionText(runtime));
  }
  if (const std::string& cublas = CublasVersion(); !cublas.empty()) {
    libraries.push_back("cublas " + cublas);
  }
  if (const std::string nccl = NcclVersion(); !nccl.empty()) libraries.push_back("nccl " + nccl);
  return libraries;
}

double Attribute(cudaDeviceAttr attribute, int index) {
  int value = 0;
  return cudaDeviceGetAttribute(&value, attribute, index) == cudaSuccess ? value : 0;
}

// A device whose properties cannot be read is left out, and the message says so.
bool ReadGpu(int index, GpuInfo& gpu, std::string& message) {
  cudaDeviceProp properties{};
  const cudaError_t status = cudaGetDeviceProperties(&properties, index);
  if (status != cudaSuccess) {
    message += fmt::format("; GPU {}: {}", index, cudaGetErrorString(status));
    return false;
  }
  gpu.index = index;
  gpu.name = properties.name;
  gpu.total_memory = Bytes{properties.totalGlobalMem};
  gpu.sm_count = properties.multiProcessorCount;
  gpu.compute_major = properties.major;
  gpu.compute_minor = properties.minor;
  // Rates are in kHz, the bus in bits; memory moves twice a clock.
  gpu.memory_bytes_per_s = Attribute(cudaDevAttrMemoryClockRate, index) * 1e3 * 2 *
                           Attribute(cudaDevAttrGlobalMemoryBusWidth, index) / 8;
  gpu.clock_hz = Attribute(cudaDevAttrClockRate, index) * 1e3;
  std::array<char, 32> pci{};
  if (cudaDeviceGetPCIBusId(pci.data(), static_cast<int>(pci.size()), index) == cudaSuccess) {
    gpu.pci_bus_id = pci.data();
  }
  return true;
}

int PeerAttribute(cudaDeviceP2PAttr attribute, int from, int to) {
  int value = 0;
  return cudaDeviceGetP2PAttribute(&value, attribute, from, to) == cudaSuccess ? value : 0;
}

std::vector<GpuPeerPath> ReadPeerPaths(const std::vector<GpuInfo>& gpus) {
  std::vector<GpuPeerPath> paths;
  if (gpus.size() < 2) return paths;
  const std::unique_ptr<GpuMonitor> monitor = OpenGpuMonitor();
  for (const GpuInfo& from : gpus) {
    for (const GpuInfo& to : gpus) {
      if (from.index == to.index) continue;
      GpuPeerPath path{.from = from.index, .to = to.index};
      path.access = PeerAttribute(cudaDevP2PAttrAccessSupported, path.from, path.to) != 0;
      path.native_atomics =
          PeerAttribute(cudaDevP2PAttrNativeAtomicSupported, path.from, path.to) != 0;
      path.performance_rank = PeerAttribute(cudaDevP2PAttrPerformanceRank, path.from, path.to);
      const Reading<bool> joined = NvlinkJoins(*monitor, from.pci_bus_id, to.pci_bus_id);
      if (joined) path.nvlink = *joined;
      path.nvlink_why = joined.why();
      paths.push_back(path);
    }
  }
  return paths;
}

}  // namespace

GpuInventory FindGpus() {
  GpuInventory inventory;
  inventory.built_with_cuda = true;
  inventory.libraries = LibraryVersions();

  if (cudaRuntimeGetVersion(&inventory.runtime_version) != cudaSuccess) {
    inventory.runtime_version = 0;
  }
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    inventory.driver_message = "no driver: built with CUDA, but no NVIDIA driver is loaded here";
    return inventory;
  }
  inventory.driver_version = driver;
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    inventory.driver_message = fmt::format("driver for CUDA {}, but no usable GPU: {}",
                                           VersionText(driver), cudaGetErrorString(status));
    return inventory;
  }
  inventory.driver_message = fmt::format("driver for CUDA {}", VersionText(driver));
  for (int index = 0; index < count; ++index) {
    GpuInfo gpu;
    if (ReadGpu(index, gpu, inventory.driver_message)) inventory.gpus.push_back(std::move(gpu));
  }
  inventory.peer_paths = ReadPeerPaths(inventory.gpus);
  return inventory;
}

}  // namespace tandem
