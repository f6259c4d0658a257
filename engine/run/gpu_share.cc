#include "engine/run/gpu_share.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/run/gpu_rig.h"

namespace tandem {
namespace {

constexpr size_t kRepeats = 3;

bool IsFair(const ShareBandwidth& rates) {
  return rates.beside >= (1 - kShareTolerance) * rates.alone;
}

// The run of the middle ratio: a burst of other work on the machine spoils at most one side.
ShareBandwidth MedianOf(const std::function<ShareBandwidth(uint32_t)>& measure, uint32_t sms) {
  std::array<ShareBandwidth, kRepeats> runs;
  for (ShareBandwidth& run : runs) {
    run = measure(sms);
    if (!(run.alone > 0) || !(run.beside > 0)) {
      Fail(ErrorCode::kDevice,
           fmt::format("gpu share: {} multiprocessors read {:.3g} bytes/s alone and {:.3g} beside "
                       "the others (want more than none); --gpu-share off goes without",
                       sms, run.alone, run.beside));
    }
  }
  const auto ratio = [](const ShareBandwidth& run) { return run.beside / run.alone; };
  std::sort(runs.begin(), runs.end(),
            [&](const auto& a, const auto& b) { return ratio(a) < ratio(b); });
  return runs[kRepeats / 2];
}

GpuShare ShareFrom(const GpuCut& cut, uint32_t sms, const ShareBandwidth& rates, const char* how) {
  return GpuShare{.sms = sms,
                  .gpu_sms = cut.sms,
                  .alone_bytes_per_s = rates.alone,
                  .beside_bytes_per_s = rates.beside,
                  .balanced = IsFair(rates),
                  .how = how};
}

uint32_t FirstSize(const GpuCut& cut) { return (cut.least + cut.step - 1) / cut.step * cut.step; }
uint32_t LastSize(const GpuCut& cut, uint32_t parts) {
  return cut.sms / parts / cut.step * cut.step;
}

GpuShare ForceShare(int gpu, const GpuCut& cut, uint32_t parts, uint32_t sms,
                    const GpuShareProbes& probes) {
  const uint32_t first = FirstSize(cut), last = LastSize(cut, parts);
  if (sms < first || sms > last || sms % cut.step != 0) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("--gpu-share: {} multiprocessors for each of {} devices on cuda:{}, which has "
                     "{} (want {} to {}, in multiples of {}; or auto, or off)",
                     sms, parts, gpu, cut.sms, first, last, cut.step));
  }
  return ShareFrom(
      cut, sms, MedianOf([&](uint32_t k) { return probes.measure(gpu, parts, k); }, sms), "forced");
}

GpuShare ShareOf(int gpu, uint32_t parts, const GpuShareOption& option,
                 const GpuShareProbes& probes) {
  if (option.kind == GpuShareOption::Kind::kOff) return GpuShare{.how = "off"};
  const GpuCut cut = probes.cut_of(gpu);
  Check(cut.sms > 0 && cut.step > 0, "gpu share: a GPU has multiprocessors");
  GpuShare share = option.kind == GpuShareOption::Kind::kForce
                       ? ForceShare(gpu, cut, parts, option.sms, probes)
                       : CalibrateShare(cut, parts, [&](uint32_t sms) {
                           return probes.measure(gpu, parts, sms);
                         });
  if (!probes.run_together(gpu, parts, share.sms)) {
    Fail(ErrorCode::kDevice,
         fmt::format("gpu share: kernels on {} parts of {} multiprocessors of cuda:{} stood in one "
                     "queue behind each other (want them to run at once, or one that waits for "
                     "another would wait for ever); set CUDA_DEVICE_MAX_CONNECTIONS=32, or go "
                     "without parts and kernels that wait: --gpu-share off --path copy",
                     parts, share.sms, gpu));
  }
  return share;
}

// What is said of a cut with the rig: what it is, and what is wrong with it.
std::string Describe(int gpu, const GpuShare& share) {
  if (share.sms == 0) return fmt::format("cuda:{} not cut", gpu);
  return fmt::format(
      "cuda:{} cut into {} of {} multiprocessors each ({}): {:.0f} GB/s alone, "
      "{:.0f} beside{}",
      gpu, share.sms, share.gpu_sms, share.how, share.alone_bytes_per_s * 1e-9,
      share.beside_bytes_per_s * 1e-9,
      share.balanced ? "" : ", UNEQUAL: a device is faster while its peer idles");
}

}  // namespace

GpuShareOption ParseGpuShare(const std::string& text) {
  if (text == "auto") return {};
  if (text == "off") return {.kind = GpuShareOption::Kind::kOff};
  uint32_t sms = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), sms);
  if (error != std::errc() || end != text.data() + text.size() || sms == 0) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("--gpu-share: got '{}' (want auto, off, or the number of multiprocessors that "
                     "each device gets of a GPU named several times)",
                     text));
  }
  return {.kind = GpuShareOption::Kind::kForce, .sms = sms};
}

GpuShare CalibrateShare(const GpuCut& cut, uint32_t parts,
                        const std::function<ShareBandwidth(uint32_t sms)>& measure) {
  const uint32_t first = FirstSize(cut), last = LastSize(cut, parts);
  if (last < first) {
    Fail(ErrorCode::kDevice,
         fmt::format("gpu share: a GPU of {} multiprocessors cannot be cut into {} parts (want {} "
                     "or more for each, in multiples of {}); name it fewer times, or let the "
                     "devices share all of it: --gpu-share off",
                     cut.sms, parts, first, cut.step));
  }
  // `fair` is known to be, `unfair` not to be; both count steps above the smallest size.
  std::map<uint32_t, ShareBandwidth> measured;
  const auto try_size = [&](uint32_t sms) {
    measured[sms] = MedianOf(measure, sms);
    return IsFair(measured[sms]);
  };
  if (!try_size(first)) return ShareFrom(cut, first, measured[first], "calibrated");
  uint32_t fair = 0;
  uint32_t unfair = (last - first) / cut.step + 1;
  while (unfair - fair > 1) {
    const uint32_t middle = fair + (unfair - fair) / 2;
    (try_size(first + middle * cut.step) ? fair : unfair) = middle;
  }
  const uint32_t sms = first + fair * cut.step;
  return ShareFrom(cut, sms, measured[sms], "calibrated");
}

void ShareGpus(Rig& rig, const GpuShareOption& option, const GpuShareProbes& probes) {
  if (!rig.SharesAGpu()) return;
  std::map<int, GpuShare> by_gpu;
  rig.shares.assign(rig.gpus.size(), GpuShare{});
  for (size_t d = 0; d < rig.gpus.size(); ++d) {
    const int gpu = rig.gpus[d];
    const auto parts = static_cast<uint32_t>(std::count(rig.gpus.begin(), rig.gpus.end(), gpu));
    if (parts < 2) continue;
    const auto [it, added] = by_gpu.try_emplace(gpu);
    if (added) {
      it->second = ShareOf(gpu, parts, option, probes);
      rig.description += "; " + Describe(gpu, it->second);
    }
    const GpuShare& share = rig.shares[d] = it->second;
    if (share.sms == 0) continue;
    DeviceSpec& device = rig.devices[d];
    device.memory_bytes_per_s = share.beside_bytes_per_s;
    device.flops = device.flops * parts * share.sms / share.gpu_sms;
    device.source = "bandwidth measured on this part of the GPU, the rest nominal";
  }
}

Rig MachineRig(const DeviceList& list, const GpuShareOption& option) {
  if (list.gpus.empty()) return ThisMachineRig(list.count);
  Rig rig = GpuRig(list.gpus, FindGpus(), ReadGpuMemory);
  ShareGpus(rig, option, ThisMachinesShares());
  return rig;
}

}  // namespace tandem
