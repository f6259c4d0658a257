// CPU devices and buffers for the link's tests.
#pragma once

#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "engine/device/cpu/cpu_device.h"
#include "engine/link/collectives.h"
#include "engine/link/transport.h"

namespace tandem::testing {

class LinkDevices {
 public:
  explicit LinkDevices(uint32_t n) : pool(std::make_shared<ThreadPool>(ThreadPoolOptions{1})) {
    for (uint32_t d = 0; d < n; ++d) {
      devices.push_back(
          std::make_unique<CpuDevice>(DeviceId{static_cast<int32_t>(d)}, Bytes{}, pool));
    }
    host = std::make_unique<CpuDevice>(kHost, Bytes{}, pool);
    ledger.BeginStep(ProgramKind::kDecode);
    ledger.BeginOp(0, OpKind::kAllReduce, BlockId{1}, WireType::kF32);
  }

  std::shared_ptr<ThreadPool> pool;
  std::vector<std::unique_ptr<CpuDevice>> devices;
  std::unique_ptr<CpuDevice> host;
  TrafficLedger ledger;
};

inline std::vector<float> RandomFloats(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

}  // namespace tandem::testing
