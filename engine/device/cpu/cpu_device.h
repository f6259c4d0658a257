// A virtual CPU device: its own memory ledger over ordinary memory, and a share in a thread team.
// Several virtual devices of one process usually share one team: the executor runs ops one after
// the other, and the virtual timeline lays them side by side.
#pragma once

#include <memory>

#include "engine/device/cpu/slabs.h"
#include "engine/device/cpu/thread_pool.h"
#include "engine/device/device.h"

namespace tandem {

class CpuDevice final : public Device {
 public:
  CpuDevice(DeviceId id, Bytes capacity, std::shared_ptr<ThreadPool> pool);
  ~CpuDevice() override;

  ThreadPool& pool() { return *pool_; }

 private:
  std::byte* AllocateRaw(size_t size) override;
  void FreeRaw(std::byte* data, size_t size) noexcept override;
  std::shared_ptr<ThreadPool> pool_;
  Slabs slabs_;
};

}  // namespace tandem
