// GPUs as the devices of a plan. One thread asks all of them in turn; each keeps its order in its
// own streams.
#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/device/cuda/cuda_device.h"
#include "engine/link/cuda/nccl_transport.h"
#include "engine/link/cuda/wire.h"
#include "engine/link/queued_transport.h"
#include "engine/run/backend.h"
#include "engine/run/on_gpu.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/probe.h"

namespace tandem {
namespace {

// Of kGpuReserve, what the kernels may book beside what a plan's memory table says.
constexpr Bytes kGpuOpsRoom{uint64_t{64} << 20};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const BackendSetup& setup)
      : gpus_(setup.rig->gpus.begin(), setup.rig->gpus.begin() + setup.n_devices) {
    Check(setup.rig->gpus.size() >= setup.n_devices, "cuda backend: the rig names its GPUs");
    for (uint32_t d = 0; d < setup.n_devices; ++d) {
      const int gpu = gpus_[d];
      devices_.push_back(MakeCudaDevice(DeviceId{static_cast<int32_t>(d)}, gpu,
                                        setup.rig->devices[d].memory + kGpuOpsRoom));
      MakeGpuCurrent(gpu);
      std::unique_ptr<Ops> ops =
          MakeCudaOps(CudaOpsOptions{.device = gpu,
                                     .stream = devices_[d]->queue(QueueRole::kCompute)->native(),
                                     .activations = setup.ops.activations,
                                     .memory = devices_[d].get()});
      ops = std::make_unique<OnGpu>(std::move(ops), [gpu] { MakeGpuCurrent(gpu); });
      ops_.push_back(setup.wrap_ops ? setup.wrap_ops(std::move(ops)) : std::move(ops));
      wire_ops_.push_back(MakeCudaWireOps(gpu));
    }
    host_ = MakePinnedHost(setup.rig->host_memory);
  }

  std::span<const std::unique_ptr<Device>> devices() const override { return devices_; }
  Device& host() override { return *host_; }
  Ops& ops(size_t device) override { return *ops_[device]; }
  WireOps& wire_ops(size_t device) override { return *wire_ops_[device]; }

  std::unique_ptr<Transport> MakeTransport(PathKind path) override {
    switch (path) {
      case PathKind::kNccl:
        return MakeNcclTransport(gpus_);
      case PathKind::kHostStaged:
        return MakeQueuedTransport(path, path, devices_, *host_);
      case PathKind::kCopy:
        GrantEachOther();
        return MakeQueuedTransport(path, path, devices_, *host_);
      default:
        break;
    }
    Fail(ErrorCode::kUnsupported,
         fmt::format("link: no transport {} between GPUs (have: copy, host_staged, nccl); name one "
                     "of these with --path",
                     ToString(path)));
  }

  std::unique_ptr<Transport> MakeHostTransport(PathKind path) override {
    return MakeQueuedTransport(PathKind::kCopy, path, devices_, *host_);
  }

  std::unique_ptr<DeviceProbe> MakeProbe(size_t device) override {
    return cuda::MakeCudaProbe({.device = gpus_[device],
                                .stream = devices_[device]->queue(QueueRole::kCompute)->native(),
                                .memory = devices_[device].get()});
  }

  bool lost() override {
    return std::any_of(gpus_.begin(), gpus_.end(), [](int gpu) { return IsGpuLost(gpu); });
  }

 private:
  // Without it the driver would copy by way of the host and the path would not be what it says.
  void GrantEachOther() {
    for (int from : gpus_) {
      for (int to : gpus_) {
        if (GrantPeerAccess(from, to)) continue;
        Fail(ErrorCode::kDevice,
             fmt::format("link: path copy: the driver grants cuda:{} no access to the memory of "
                         "cuda:{}; name --path host_staged or nccl",
                         from, to));
      }
    }
  }

  const std::vector<int> gpus_;  // by DeviceId
  std::vector<std::unique_ptr<Device>> devices_;
  std::unique_ptr<Device> host_;
  std::vector<std::unique_ptr<WireOps>> wire_ops_;
  std::vector<std::unique_ptr<Ops>> ops_;  // last: they go before the devices whose memory they hold
};

}  // namespace

std::unique_ptr<Backend> MakeCudaBackend(const BackendSetup& setup) {
  return std::make_unique<CudaBackend>(setup);
}

}  // namespace tandem
