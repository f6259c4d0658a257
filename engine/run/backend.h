// What a plan runs on: devices of one kind with the host's memory that they reach, the kernels and
// link arithmetic of each, and the transports between them. One implementation a kind: the CPU's
// (cpu_backend.cc), CUDA's (cuda_backend.cc, or no_cuda_backend.cc where CMake found no toolkit),
// and the tests' fake devices.
//
// Devices either all have queues or none has: the host's processor has some where it is beside
// cards (cpu_beside.h). One thread.
//
//   std::unique_ptr<Backend> backend = MakeCpuBackend(setup);
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/device/cpu/thread_pool.h"
#include "engine/device/device.h"
#include "engine/device/memory_check.h"
#include "engine/device/recorder.h"
#include "engine/link/transport.h"
#include "engine/link/wire_ops.h"
#include "engine/rig/rig.h"
#include "engine/run/gpu_switches.h"
#include "kernels/device_probe.h"
#include "kernels/ops.h"

namespace tandem {

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::span<const std::unique_ptr<Device>> devices() const = 0;  // by DeviceId
  // Of the host's memory the part that devices reach at the full rate of their links.
  virtual Device& host() = 0;
  // The other part, for weights that are too many for it; null where all of it is one kind.
  virtual Device* pageable_host() { return nullptr; }
  // Of one device; several devices may share one where none of them has queues.
  virtual Ops& ops(size_t device) = 0;
  virtual WireOps& wire_ops(size_t device) = 0;
  // Between devices, over a path that the rig has. Throws Error(kUnsupported | kDevice) saying why
  // where it cannot be had here.
  virtual std::unique_ptr<Transport> MakeTransport(PathKind path) = 0;
  // The path made in each of the ways that MakeTransport would choose from, and whatever else of it
  // can be looked at by itself: for `tandem rig test`. Named "push", "pull"; none where there is
  // one way.
  virtual std::vector<std::string> WaysOf(PathKind) { return {}; }
  virtual std::unique_ptr<Transport> MakeTransportBy(PathKind path, const std::string&) {
    return MakeTransport(path);
  }
  // Whether two devices see each other's stores in order, where the path rests on that. Throws
  // Error(kDevice). False: it does not.
  virtual bool TestOrderOf(PathKind, size_t, size_t) { return false; }
  // Between the host and devices; `path` is what it books.
  virtual std::unique_ptr<Transport> MakeHostTransport(PathKind path) = 0;
  // By GPU: what its devices' ledgers hold together beside what the driver says was taken since
  // this back end was made. Empty where the memory is the CPU's.
  virtual std::vector<MemoryCheck> CheckMemory() { return {}; }
  // Of all devices' queues; null where steps cannot be recorded.
  virtual QueueRecorder* recorder() { return nullptr; }
  // What measures a device's roofs; null where the back end has nothing to measure with.
  virtual std::unique_ptr<DeviceProbe> MakeProbe(size_t) { return nullptr; }
  // Whether a device has failed for good: nothing will run on it again in this process.
  virtual bool lost() { return false; }
};

struct BackendSetup {
  const Rig* rig = nullptr;  // outlives the back end
  uint32_t n_devices = 0;
  CpuOpsOptions ops;  // tier "ref" is the oracle; CUDA takes the activations alone
  GpuSwitches gpu;
  uint32_t step_rows = 512;  // at most, of a prefill step
  std::shared_ptr<ThreadPool> pool;
  // At most so much of the host's memory is page-locked; zero: DefaultPinnedLimit.
  Bytes pinned_limit;
  // Where given, what each Ops is wrapped in.
  std::function<std::unique_ptr<Ops>(std::unique_ptr<Ops>)> wrap_ops;
};

// The host processor's ops as the setup asks for them, unwrapped. Throws Error(kUnsupported) for
// what they lack: attention in half precision.
std::unique_ptr<Ops> MakeHostOps(const BackendSetup& setup);

std::unique_ptr<Backend> MakeCpuBackend(const BackendSetup& setup);
// The GPUs that the rig names. Throws Error(kUnsupported) in a build without CUDA.
std::unique_ptr<Backend> MakeCudaBackend(const BackendSetup& setup);

}  // namespace tandem
