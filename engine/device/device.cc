#include "engine/device/device.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "engine/base/device_name.h"
#include "engine/base/error.h"

namespace tandem {

Buffer::Buffer(Buffer&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      use_(other.use_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    Free();
    device_ = std::exchange(other.device_, nullptr);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    use_ = other.use_;
  }
  return *this;
}

Buffer::~Buffer() { Free(); }

void Buffer::Free() noexcept {
  if (data_ == nullptr) return;
  device_->FreeRaw(data_, size_);
  device_->ledger_.Release(use_, Bytes{size_});
  data_ = nullptr;
  size_ = 0;
}

Device::Device(DeviceId id, std::string name, Bytes capacity)
    : id_(id), name_(std::move(name)), ledger_(DeviceName(id), capacity) {}

void Device::Upload(std::byte* to, const std::byte* from, size_t size) {
  std::memcpy(to, from, size);
}

void Device::Download(std::byte* to, const std::byte* from, size_t size) {
  std::memcpy(to, from, size);
}

Buffer Device::Allocate(MemoryUse use, Bytes bytes, std::string_view what) {
  if (bytes.value == 0) return Buffer();
  ledger_.Book(use, bytes, what);
  std::byte* data = AllocateFor(use, bytes.value);
  if (data == nullptr) {
    ledger_.Release(use, bytes);
    Fail(ErrorCode::kDevice,
         fmt::format("memory of {}: the system refused {} bytes for {} ({}); close other programs, "
                     "or use a smaller model or context",
                     name_, bytes.value, what, ToString(use)));
  }
  return Buffer(this, data, bytes.value, use);
}

std::optional<Buffer> Device::TryAllocate(MemoryUse use, Bytes bytes, std::string_view what) {
  if (bytes.value == 0) return Buffer();
  if (!ledger_.Fits(bytes)) return std::nullopt;
  ledger_.Book(use, bytes, what);
  std::byte* data = AllocateFor(use, bytes.value);
  if (data != nullptr) return Buffer(this, data, bytes.value, use);
  ledger_.Release(use, bytes);
  return std::nullopt;
}

}  // namespace tandem
