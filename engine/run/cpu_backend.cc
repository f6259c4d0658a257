// CPU devices: memory of their own, one team of threads, one Ops for all of them.
#include <utility>
#include <vector>

#include "engine/device/cpu/cpu_device.h"
#include "engine/run/backend.h"
#include "engine/run/host_device_probe.h"
#include "engine/run/switch_rules.h"

namespace tandem {
namespace {

constexpr const char* kOracleTier = "ref";

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendSetup& setup) : pool_(setup.pool) {
    ops_ = MakeHostOps(setup);
    if (setup.wrap_ops) ops_ = setup.wrap_ops(std::move(ops_));
    for (uint32_t d = 0; d < setup.n_devices; ++d) {
      devices_.push_back(std::make_unique<CpuDevice>(DeviceId{static_cast<int32_t>(d)},
                                                     setup.rig->devices[d].memory, pool_));
    }
    host_ = std::make_unique<CpuDevice>(kHost, setup.rig->host_memory, pool_);
  }

  std::span<const std::unique_ptr<Device>> devices() const override { return devices_; }
  Device& host() override { return *host_; }
  Ops& ops(size_t) override { return *ops_; }
  WireOps& wire_ops(size_t) override { return HostWireOps(); }
  std::unique_ptr<Transport> MakeTransport(PathKind path) override {
    return tandem::MakeTransport(CpuMechanism(path), path, host_.get());
  }
  std::unique_ptr<Transport> MakeHostTransport(PathKind path) override {
    return tandem::MakeTransport(PathKind::kLocal, path, nullptr);
  }
  std::unique_ptr<DeviceProbe> MakeProbe(size_t) override {
    return MakeHostDeviceProbe(*pool_, static_cast<uint32_t>(devices_.size()));
  }

 private:
  std::shared_ptr<ThreadPool> pool_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::unique_ptr<Device> host_;
  std::unique_ptr<Ops> ops_;
};

}  // namespace

std::unique_ptr<Ops> MakeHostOps(const BackendSetup& setup) {
  if (setup.gpu.attention_precision != AttentionPrecision::kSplit) {
    RefuseAttention(setup.gpu.attention_precision);
  }
  return setup.ops.tier == kOracleTier ? MakeRefOps(setup.ops.activations)
                                       : MakeCpuOps(*setup.pool, setup.ops);
}

std::unique_ptr<Backend> MakeCpuBackend(const BackendSetup& setup) {
  return std::make_unique<CpuBackend>(setup);
}

}  // namespace tandem
