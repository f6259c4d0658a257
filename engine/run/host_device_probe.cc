#include "engine/run/host_device_probe.h"

#include <chrono>
#include <cstddef>
#include <cstring>
#include <optional>
#include <vector>

#include "engine/base/error.h"
#include "engine/run/host_probe.h"

namespace tandem {
namespace {

constexpr size_t kCopyBytes = size_t{128} << 20;  // beyond most caches; half from, half to
constexpr int kRegions = 200;

double Seconds(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class HostDeviceProbe final : public DeviceProbe {
 public:
  HostDeviceProbe(ThreadPool& pool, uint32_t sharers) : pool_(pool), sharers_(sharers) {}

  void Ask(DeviceMeasure what) override { answer_ = Measure(what); }
  double Take() override { return answer_; }

 private:
  double Measure(DeviceMeasure what) {
    switch (what) {
      case DeviceMeasure::kMemoryRead:
        return loops().SampleMemoryRead() / sharers_;
      case DeviceMeasure::kMemoryCopy:
        return CopyRate() / sharers_;
      case DeviceMeasure::kProductBf16:
        return loops().SampleFlops(ArithmeticKind::kBf16) / sharers_;
      case DeviceMeasure::kProductInt8:
        return loops().SampleFlops(ArithmeticKind::kInt8) / sharers_;
      case DeviceMeasure::kProductF32:
        return loops().SampleFlops(ArithmeticKind::kF32) / sharers_;
      case DeviceMeasure::kProductF16:
        Fail(ErrorCode::kUnsupported,
             "probe: the CPU's kernels widen F16 to f32: see products of F32");
      case DeviceMeasure::kLaunchEager:
        return RegionSeconds();
      case DeviceMeasure::kLaunchGraph:
        Fail(ErrorCode::kUnsupported, "probe: CPU devices have no graphs");
    }
    Fail(ErrorCode::kUnsupported, "probe: no such measurement of a CPU");
  }

  HostProbe& loops() {
    if (!loops_) loops_.emplace(pool_, ArithmeticKind::kInt8);
    return *loops_;
  }

  double CopyRate() {
    if (copy_.empty()) copy_.assign(kCopyBytes, std::byte{1});
    const size_t half = kCopyBytes / 2;
    const auto start = std::chrono::steady_clock::now();
    pool_.Run([&](int thread, int threads) {
      const WorkRange part = SplitWork(static_cast<int64_t>(half), thread, threads, 4096);
      std::memcpy(copy_.data() + half + part.begin, copy_.data() + part.begin,
                  static_cast<size_t>(part.end - part.begin));
    });
    return static_cast<double>(kCopyBytes) / Seconds(start);
  }

  double RegionSeconds() {
    pool_.Run([](int, int) {});  // the team is awake
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kRegions; ++i) pool_.Run([](int, int) {});
    return Seconds(start) / kRegions;
  }

  ThreadPool& pool_;
  const double sharers_;
  std::optional<HostProbe> loops_;
  std::vector<std::byte> copy_;
  double answer_ = 0;
};

}  // namespace

std::unique_ptr<DeviceProbe> MakeHostDeviceProbe(ThreadPool& pool, uint32_t sharers) {
  return std::make_unique<HostDeviceProbe>(pool, sharers);
}

}  // namespace tandem
