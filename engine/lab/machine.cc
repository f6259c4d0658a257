// What this machine is, as records state it: no host name, nothing personal.
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <string>

#include "engine/device/inventory.h"
#include "engine/lab/record.h"

namespace tandem {
namespace {

// The first "key : value" of /proc/cpuinfo.
std::string CpuInfo(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    size_t colon = line.find(':');
    if (colon != std::string::npos && colon + 2 <= line.size()) return line.substr(colon + 2);
  }
  return "unknown";
}

// "NVIDIA H200" -> "nvidia-h200".
std::string Slug(const std::string& text) {
  std::string slug;
  for (char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      slug += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!slug.empty() && slug.back() != '-') {
      slug += '-';
    }
  }
  while (!slug.empty() && slug.back() == '-') slug.pop_back();
  return slug;
}

// The vector extensions that choose kernels, of those the processor has.
std::vector<std::string> VectorExtensions() {
  std::string flags = " " + CpuInfo("flags") + " ";
  std::vector<std::string> found;
  for (const char* name :
       {"avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"}) {
    if (flags.find(" " + std::string(name) + " ") != std::string::npos) found.emplace_back(name);
  }
  return found;
}

}  // namespace

nlohmann::json MachineFacts() {
  utsname kernel{};
  uname(&kernel);
  auto pages = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES));
  auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return {{"cpu", CpuInfo("model name")},
          {"cores", sysconf(_SC_NPROCESSORS_ONLN)},
          {"memory_bytes", pages * page},
          {"vector_extensions", VectorExtensions()},
          {"kernel", std::string(kernel.sysname) + " " + kernel.release},
          {"architecture", kernel.machine}};
}

nlohmann::json GpuFacts(std::span<const int> gpus) {
  const GpuInventory found = FindGpus();
  nlohmann::json devices = nlohmann::json::array();
  for (const GpuInfo& gpu : found.gpus) {
    if (std::find(gpus.begin(), gpus.end(), gpu.index) == gpus.end()) continue;
    devices.push_back(
        {{"index", gpu.index},
         {"name", gpu.name},
         {"memory_bytes", gpu.total_memory.value},
         {"sm_count", gpu.sm_count},
         {"compute_capability", fmt::format("{}.{}", gpu.compute_major, gpu.compute_minor)}});
  }
  return {{"driver", found.driver_message}, {"libraries", found.libraries}, {"devices", devices}};
}

std::string MachineFolderName() {
  std::string name =
      Slug(CpuInfo("model name")) + "-" + std::to_string(sysconf(_SC_NPROCESSORS_ONLN)) + "c";
  const GpuInventory found = FindGpus();
  if (found.gpus.empty()) return name;
  return fmt::format("{}-{}x-{}", name, found.gpus.size(), Slug(found.gpus[0].name));
}

}  // namespace tandem
