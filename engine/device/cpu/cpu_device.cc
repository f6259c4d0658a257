#include "engine/device/cpu/cpu_device.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "engine/base/check.h"

namespace tandem {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

CpuDevice::CpuDevice(DeviceId id, Bytes capacity, std::shared_ptr<ThreadPool> pool)
    : Device(id, id.IsHost() ? "host" : fmt::format("cpu:{}", id.value), capacity),
      pool_(std::move(pool)) {
  Check(pool_ != nullptr, "cpu device: no thread pool");
}

CpuDevice::~CpuDevice() = default;

// Large buffers start on a huge page and ask for huge pages: a decode step walks all weights once,
// and with 4 KiB pages the page walks cost it some percent.
std::byte* CpuDevice::AllocateRaw(size_t size) {
  const size_t align = size >= kHugePage ? kHugePage : kLine;
  if (size > SIZE_MAX - align) return nullptr;
  const size_t rounded = (size + align - 1) / align * align;
  void* data = std::aligned_alloc(align, rounded);
  if (data == nullptr) return nullptr;
  if (align == kHugePage) madvise(data, rounded, MADV_HUGEPAGE);
  std::memset(data, 0, size);
  return static_cast<std::byte*>(data);
}

void CpuDevice::FreeRaw(std::byte* data, size_t) noexcept { std::free(data); }

}  // namespace tandem
