#include "engine/device/cpu/cpu_device.h"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/sanitizers.h"

namespace tandem {
namespace {

constexpr size_t kLine = 64;
// Under a sanitizer each piece is an allocation of its own, so that overruns are seen.
constexpr bool kUseSlabs = !kAddressSanitizer;

}  // namespace

CpuDevice::CpuDevice(DeviceId id, Bytes capacity, std::shared_ptr<ThreadPool> pool)
    : Device(id, id.IsHost() ? "host" : fmt::format("cpu:{}", id.value), capacity),
      pool_(std::move(pool)) {
  Check(pool_ != nullptr, "cpu device: no thread pool");
}

CpuDevice::~CpuDevice() = default;

std::byte* CpuDevice::AllocateRaw(size_t size) {
  std::byte* data = nullptr;
  if (size >= kHugePage) {
    data = AllocateHuge(size);
  } else if (kUseSlabs) {
    data = slabs_.Take(size);
  } else {
    data = static_cast<std::byte*>(std::aligned_alloc(kLine, (size + kLine - 1) / kLine * kLine));
  }
  if (data != nullptr) std::memset(data, 0, size);
  return data;
}

void CpuDevice::FreeRaw(std::byte* data, size_t) noexcept {
  if (!slabs_.Give(data)) std::free(data);
}

}  // namespace tandem
