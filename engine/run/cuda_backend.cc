// GPUs as the devices of a plan, and the host's processor beside them where the rig has it. One
// thread asks all of them in turn; each keeps its order in its own streams.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/device/cpu/cpu_device.h"
#include "engine/device/cuda/cuda_device.h"
#include "engine/device/cuda/cuda_recorder.h"
#include "engine/device/cuda/green.h"
#include "engine/link/cuda/nccl_transport.h"
#include "engine/link/cuda/peer_kernels.h"
#include "engine/link/cuda/wire.h"
#include "engine/link/litmus.h"
#include "engine/link/p2p_transport.h"
#include "engine/link/queued_transport.h"
#include "engine/run/backend.h"
#include "engine/run/cpu_beside.h"
#include "engine/run/gpu_rig.h"
#include "engine/run/host_weights.h"
#include "engine/run/on_gpu.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/probe.h"

namespace tandem {
namespace {

// Of kGpuReserve, what the kernels may book beside what a plan's memory table says. (Transports
// book what its column `links` says.)
constexpr Bytes kGpuOpsRoom{uint64_t{64} << 20};

constexpr int kOrderRounds = 4;
constexpr char kNoWindows[] = "windows off";

// Whether one GPU stands for several devices on a link that is another than its own memory, which
// GpuRig names so.
bool PlaysItsLink(const Rig& rig) { return rig.SharesAGpu() && rig.link.name != "one-gpu"; }

// By device; null where it has all of its GPU.
std::vector<std::shared_ptr<GpuPart>> CutSharedGpus(const Rig& rig) {
  std::vector<std::shared_ptr<GpuPart>> parts(rig.gpus.size());
  std::map<int, std::vector<std::shared_ptr<GpuPart>>> left;  // of each GPU, not yet given away
  for (size_t d = 0; d < rig.shares.size(); ++d) {
    if (rig.shares[d].sms == 0) continue;
    const int gpu = rig.gpus[d];
    const auto [it, added] = left.try_emplace(gpu);
    if (added) {
      const auto sharers = std::count(rig.gpus.begin(), rig.gpus.end(), gpu);
      it->second = CutGpu(gpu, static_cast<uint32_t>(sharers), rig.shares[d].sms);
    }
    parts[d] = std::move(it->second.back());
    it->second.pop_back();
  }
  return parts;
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const BackendSetup& setup)
      : rig_(*setup.rig), switches_(setup.gpu), gpus_(GpusOf(setup)) {
    for (int gpu : gpus_) before_.emplace(gpu, Before{ReadGpuMemory(gpu).free, LedgerBytes(gpu)});
    const std::vector<std::shared_ptr<GpuPart>> parts = CutSharedGpus(*setup.rig);
    const Bytes memory = setup.rig->host_memory;
    host_ = MakePinnedHost(setup.pinned_limit.value > 0 ? setup.pinned_limit
                                                        : DefaultPinnedLimit(memory));
    pageable_host_ = std::make_unique<CpuDevice>(kHost, memory, setup.pool);
    for (uint32_t d = 0; d < setup.n_devices; ++d) {
      const DeviceId id{static_cast<int32_t>(d)};
      if (d < gpus_.size()) {
        AddGpu(setup, id, gpus_[d], parts[d]);
      } else {
        CpuBeside cpu = MakeCpuBeside(setup, id, *host_);
        devices_.push_back(std::move(cpu.device));
        ops_.push_back(std::move(cpu.ops));
      }
    }
    recorder_ = MakeCudaRecorder(Cards());
  }

  std::span<const std::unique_ptr<Device>> devices() const override { return devices_; }
  Device& host() override { return *host_; }
  Device* pageable_host() override { return pageable_host_.get(); }
  Ops& ops(size_t device) override { return *ops_[device]; }
  WireOps& wire_ops(size_t device) override {
    return device < gpus_.size() ? *wire_ops_[device] : QueuedHostWireOps();
  }

  std::unique_ptr<Transport> MakeTransport(PathKind path) override {
    switch (path) {
      case PathKind::kNccl:
        return MakeNccl(switches_.nccl_windows);
      case PathKind::kHostStaged:
        return MakeQueuedTransport(
            path, path, Cards(), *host_,
            SmallByKernel{.kernels = MakeCudaPeerKernels(gpus_), .recordable = !rig_.SharesAGpu()});
      case PathKind::kP2p:
        GrantEachOther(path);
        return MakeP2pTransport(P2pOptions{.way = switches_.p2p_way,
                                           .shape = PlaysItsLink(rig_) ? &rig_ : nullptr,
                                           .recordable = !rig_.SharesAGpu()},
                                Cards(), *host_, MakeCudaPeerKernels(gpus_));
      case PathKind::kCopy:
        GrantEachOther(path);
        return MakeQueuedTransport(path, path, devices_, *host_);
      default:
        break;
    }
    Fail(
        ErrorCode::kUnsupported,
        fmt::format("link: no transport {} between GPUs (have: p2p, copy, host_staged, nccl); name "
                    "one of these with --path",
                    ToString(path)));
  }

  std::vector<std::string> WaysOf(PathKind path) override {
    if (path == PathKind::kNccl && switches_.nccl_windows) return {kNoWindows};
    if (path != PathKind::kP2p) return {};
    return {ToString(P2pWay::kPush), ToString(P2pWay::kPull)};
  }
  std::unique_ptr<Transport> MakeTransportBy(PathKind path, const std::string& way) override {
    if (path == PathKind::kNccl) return MakeNccl(way != kNoWindows);
    Check(path == PathKind::kP2p, "cuda backend: a path with one way");
    GrantEachOther(path);
    return MakeP2pTransport(P2pOptions{.way = *P2pWayFromName(way)}, Cards(), *host_,
                            MakeCudaPeerKernels(gpus_));
  }
  bool TestOrderOf(PathKind path, size_t a, size_t b) override {
    if (path != PathKind::kP2p) return false;
    GrantEachOther(path);
    TestOrder(*devices_[a], *devices_[b], *MakeCudaPeerKernels(gpus_), kOrderRounds);
    return true;
  }

  std::unique_ptr<Transport> MakeHostTransport(PathKind path) override {
    return MakeQueuedTransport(PathKind::kCopy, path, devices_, *host_);
  }

  std::vector<MemoryCheck> CheckMemory() override {
    std::vector<MemoryCheck> checks;
    for (const auto& [gpu, before] : before_) {
      const Bytes held = LedgerBytes(gpu), free = ReadGpuMemory(gpu).free;
      checks.push_back(MemoryCheck{.gpu = gpu,
                                   .ledger = held - std::min(held, before.held),
                                   .driver = before.free - std::min(free, before.free),
                                   .room = kGpuReserve});
    }
    return checks;
  }
  QueueRecorder* recorder() override { return recorder_.get(); }
  std::unique_ptr<DeviceProbe> MakeProbe(size_t device) override {
    return cuda::MakeCudaProbe({.device = gpus_[device],
                                .stream = devices_[device]->queue(QueueRole::kCompute)->native(),
                                .memory = devices_[device].get()});
  }

  bool lost() override {
    return std::any_of(gpus_.begin(), gpus_.end(), [](int gpu) { return IsGpuLost(gpu); });
  }

 private:
  std::span<const std::unique_ptr<Device>> Cards() const {
    return std::span(devices_).first(gpus_.size());
  }

  std::unique_ptr<Transport> MakeNccl(bool windows) const {
    return MakeNcclTransport({.gpus = gpus_, .wire_ops = wire_ops_, .windows = windows});
  }

  // The host's processor comes after them, where it is among the devices.
  static std::vector<int> GpusOf(const BackendSetup& setup) {
    const std::vector<int>& named = setup.rig->gpus;
    Check(named.size() >= setup.n_devices, "cuda backend: the rig names its GPUs");
    std::vector<int> gpus(named.begin(), named.begin() + setup.n_devices);
    const auto cpu = std::find(gpus.begin(), gpus.end(), Rig::kNotAGpu);
    Check(gpus.end() - cpu <= 1, "cuda backend: the host's processor is the last device");
    gpus.erase(cpu, gpus.end());
    return gpus;
  }

  void AddGpu(const BackendSetup& setup, DeviceId id, int gpu,
              const std::shared_ptr<GpuPart>& part) {
    const DeviceSpec& spec = setup.rig->devices[static_cast<size_t>(id.value)];
    const LibraryRoom library = LibraryRoomFor(setup.step_rows);
    Bytes room = spec.memory + kGpuOpsRoom;
    if (switches_.prefill_products == PrefillProducts::kCublasLt) room += Bytes{library.bytes()};
    devices_.push_back(MakeCudaDevice(id, gpu, room, part));
    MakeGpuCurrent(gpu);
    std::unique_ptr<Ops> ops =
        MakeCudaOps(CudaOpsOptions{.device = gpu,
                                   .stream = devices_.back()->queue(QueueRole::kCompute)->native(),
                                   .sm_count = part ? static_cast<int>(part->sm_count()) : 0,
                                   .activations = setup.ops.activations,
                                   .attention = switches_.attention_precision,
                                   .prefill_products = switches_.prefill_products,
                                   .library = library,
                                   .memory = devices_.back().get()});
    ops = std::make_unique<OnGpu>(std::move(ops), [gpu] { MakeGpuCurrent(gpu); });
    ops_.push_back(setup.wrap_ops ? setup.wrap_ops(std::move(ops)) : std::move(ops));
    wire_ops_.push_back(MakeCudaWireOps(gpu));
  }

  // Without it the driver would copy by way of the host and the path would not be what it says.
  void GrantEachOther(PathKind path) {
    for (int from : gpus_) {
      for (int to : gpus_) {
        if (GrantPeerAccess(from, to)) continue;
        Fail(ErrorCode::kDevice,
             fmt::format("link: path {}: the driver grants cuda:{} no access to the memory of "
                         "cuda:{}; name --path host_staged or nccl",
                         ToString(path), from, to));
      }
    }
  }

  const Rig& rig_;
  const GpuSwitches switches_;
  // Of a GPU when this was made; other engines of the process may use it too.
  struct Before {
    Bytes free;
    Bytes held;
  };

  const std::vector<int> gpus_;  // by DeviceId
  std::map<int, Before> before_;
  std::unique_ptr<Device> host_, pageable_host_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::unique_ptr<QueueRecorder> recorder_;
  std::vector<std::unique_ptr<WireOps>> wire_ops_;
  // Last: they go before the devices whose memory they hold.
  std::vector<std::unique_ptr<Ops>> ops_;
};

}  // namespace

std::unique_ptr<Backend> MakeCudaBackend(const BackendSetup& setup) {
  return std::make_unique<CudaBackend>(setup);
}

}  // namespace tandem
