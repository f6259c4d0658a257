// A GPU as a Device: memory behind the ledger, four streams as its queues. And the host's memory as
// GPUs reach it: page-locked, mapped into every one of them.
//
// Two devices may be one GPU ("cuda:0,cuda:0"): each has its own streams and ledger, and, where the
// GPU is cut (green.h), multiprocessors of its own; the caller gives each its part of the capacity.
//
// Implemented by cuda_device.cc, or by no_cuda.cc where CMake found no toolkit: then both throw
// Error(kUnsupported).
#pragma once

#include <memory>

#include "engine/device/cuda/green.h"
#include "engine/device/device.h"

namespace tandem {

// Throws Error(kDevice) when the GPU cannot be used. `name` will be "cuda:<ordinal>". Without a
// part the streams use all of the GPU.
std::unique_ptr<Device> MakeCudaDevice(DeviceId id, int ordinal, Bytes capacity,
                                       std::shared_ptr<GpuPart> part = nullptr);

// The engine's host, for plans on GPUs.
std::unique_ptr<Device> MakePinnedHost(Bytes capacity);

// Makes the GPU the calling thread's current one. Throws Error(kDevice).
void MakeGpuCurrent(int ordinal);

// Lets kernels and copies on `from` reach the memory of `to`. False where the driver grants none; a
// GPU reaches itself. Throws Error(kDevice).
bool GrantPeerAccess(int from, int to);

// Whether the process has lost the GPU to an error that every later call meets again.
bool IsGpuLost(int ordinal);

struct GpuMemory {
  Bytes free;
  Bytes total;
};
// As the driver counts it, this process's own context included. Throws Error(kDevice).
GpuMemory ReadGpuMemory(int ordinal);

// What the ledgers of all devices of this process that are the GPU hold together. Any thread.
Bytes LedgerBytes(int ordinal);

}  // namespace tandem
