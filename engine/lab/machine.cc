// What this machine is, as records state it: no host name, nothing personal.
#include <sys/utsname.h>
#include <unistd.h>

#include <cctype>
#include <fstream>
#include <string>

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

std::string MachineFolderName() {
  std::string name;
  for (char c : CpuInfo("model name")) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  while (!name.empty() && name.back() == '-') name.pop_back();
  return name + "-" + std::to_string(sysconf(_SC_NPROCESSORS_ONLN)) + "c";
}

}  // namespace tandem
