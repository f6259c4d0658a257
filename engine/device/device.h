// A device of the rig as the engine uses it: memory behind a ledger, and, where the device works on
// its own time, queues. What runs on it are the ops of kernels/ops.h; what moves between devices
// are the transports of engine/link/.
//
// Only the code of a back end may look into a device's memory; everything else passes its pointers
// on, and moves bytes in and out by Upload and Download or by queues.
//
//   Buffer kv = device.Allocate(MemoryUse::kKv, Bytes{1 << 20}, "kv pages");
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/base/units.h"
#include "engine/device/memory_ledger.h"
#include "engine/device/queue.h"

namespace tandem {

class Device;

// Owns memory on one device, 64-byte aligned; frees it on that device and in its ledger.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  friend class Device;
  Buffer(Device* device, std::byte* data, size_t size, MemoryUse use)
      : device_(device), data_(data), size_(size), use_(use) {}
  void Free() noexcept;
  Device* device_ = nullptr;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  MemoryUse use_ = MemoryUse::kWorkspace;
};

// REQUIRES: a Device outlives its Buffers.
class Device {
 public:
  Device(DeviceId id, std::string name, Bytes capacity);
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  DeviceId id() const { return id_; }
  const std::string& name() const { return name_; }
  MemoryLedger& ledger() { return ledger_; }
  const MemoryLedger& ledger() const { return ledger_; }

  // Zero-filled memory. Throws Error(kDevice) when the ledger or the system refuses.
  Buffer Allocate(MemoryUse use, Bytes bytes, std::string_view what);
  // The same, or nothing where the ledger or the system refuses.
  std::optional<Buffer> TryAllocate(MemoryUse use, Bytes bytes, std::string_view what);

  // Null on a device that works while its caller waits, and of the host's memory.
  virtual DeviceQueue* queue(QueueRole) { return nullptr; }
  bool works_alone() { return queue(QueueRole::kCompute) != nullptr; }

  // From and to ordinary memory of the host, done on return; for loading and tests, not for steps.
  // All the device's queues are empty.
  virtual void Upload(std::byte* to, const std::byte* from, size_t size);
  virtual void Download(std::byte* to, const std::byte* from, size_t size);

 protected:
  virtual std::byte* AllocateRaw(size_t size) = 0;
  // For devices whose memory is of several kinds.
  virtual std::byte* AllocateFor(MemoryUse, size_t size) { return AllocateRaw(size); }
  virtual void FreeRaw(std::byte* data, size_t size) noexcept = 0;

 private:
  friend class Buffer;
  DeviceId id_;
  std::string name_;
  MemoryLedger ledger_;
};

}  // namespace tandem
