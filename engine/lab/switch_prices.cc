#include "engine/lab/switch_prices.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "engine/lab/device_figures.h"
#include "engine/plan/schedule.h"
#include "engine/run/gpu_rig.h"
#include "kernels/cuda/library_room.h"

namespace tandem {
namespace {

// Prices follow these; of the others they know nothing.
constexpr std::string_view kPriced[] = {"graphs", "fuse_collectives", "prefill_products"};

// Null where it was not measured.
const MeasuredFigure* LibraryRate(const Rig& rig, size_t device) {
  if (rig.measured == nullptr) return nullptr;
  return FindFigure(*rig.measured, static_cast<int32_t>(device),
                    NameOf(DeviceMeasure::kProductBf16));
}

// Whether the step's calls are long enough to be the library's. Recorded steps never are.
bool ByLibrary(const Rig& rig, const GpuSwitches& gpu, const Program& program,
               const StepShape& shape, uint32_t step_rows) {
  if (gpu.prefill_products == PrefillProducts::kOwn) return false;
  if (ReplaysStep(program, shape, rig) && gpu.graphs != GraphUse::kOff) return false;
  const uint32_t least = LibraryRoomFor(step_rows).least_rows();
  return std::any_of(shape.microbatches.begin(), shape.microbatches.end(),
                     [least](const MicrobatchShape& mb) { return mb.rows >= least; });
}

std::string NoteOnProducts(const Rig& rig) {
  if (const std::string why = WhyLibraryHasNoRate(rig); !why.empty()) return why;
  std::string rates;
  for (size_t d = 0; d < rig.size(); ++d) {
    if (!IsGpu(rig, d)) continue;
    const MeasuredFigure& rate = *LibraryRate(rig, d);
    rates +=
        fmt::format("{}d{} {:.4g} {}", rates.empty() ? "" : ", ", d, rate.value.median, rate.unit);
  }
  return fmt::format(
      "--prefill-products cublaslt: prompts are priced at what the library was measured to reach "
      "({}: {}), which is a bound: rounding the weights to BF16 is not priced",
      NameOf(DeviceMeasure::kProductBf16), rates);
}

}  // namespace

std::string WhyLibraryHasNoRate(const Rig& rig) {
  for (size_t d = 0; d < rig.size(); ++d) {
    if (!IsGpu(rig, d) || LibraryRate(rig, d) != nullptr) continue;
    return fmt::format(
        "pricer: rig {} has no measured rate of cuBLASLt's products on d{} ('{}'), so what it "
        "multiplies has no price (want a rig file of `tandem rig probe`, or --prefill-products "
        "own)",
        rig.name, d, NameOf(DeviceMeasure::kProductBf16));
  }
  return "";
}

ProductRates RatesOfProducts(const Rig& rig, const GpuSwitches& gpu, const Program& program,
                             const StepShape& shape, uint32_t step_rows) {
  ProductRates rates;
  if (!ByLibrary(rig, gpu, program, shape, step_rows)) return rates;
  rates.unknown = WhyLibraryHasNoRate(rig);
  if (!rates.unknown.empty()) return rates;
  for (size_t d = 0; d < rig.size(); ++d) {
    const DeviceSpec& device = rig.devices[d];
    rates.efficiency.push_back(IsGpu(rig, d)
                                   ? LibraryRate(rig, d)->value.median * 1e12 / device.flops
                                   : device.compute_efficiency);
  }
  return rates;
}

std::vector<std::string> NotesOnPrices(const Rig& rig, const GpuSwitches& gpu) {
  std::vector<std::string> notes;
  if (gpu.prefill_products == PrefillProducts::kCublasLt) notes.push_back(NoteOnProducts(rig));
  const bool replays = !rig.link.send_replayed.points.empty() ||
                       !rig.link.all_reduce_replayed.points.empty() ||
                       std::any_of(rig.devices.begin(), rig.devices.end(),
                                   [](const DeviceSpec& d) { return d.replay_gap.has_value(); });
  if (gpu.graphs == GraphUse::kOn && !replays) {
    notes.push_back(fmt::format(
        "--graphs on: rig {} has no replay_gap_us and no curves of replays, so recorded "
        "steps are priced as if they were asked op by op",
        rig.name));
  }
  for (const GpuSwitch& s : AllGpuSwitches()) {
    const bool priced = std::ranges::find(kPriced, std::string_view(s.key)) != std::end(kPriced);
    if (priced || s.WordOf(gpu) == std::string_view(s.WordOf({}))) continue;
    notes.push_back(fmt::format("{} {} is not priced: figures are the same for {}", s.flag(),
                                s.WordOf(gpu), s.Wanted()));
  }
  return notes;
}

}  // namespace tandem
