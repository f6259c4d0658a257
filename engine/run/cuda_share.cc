// The probes of a GPU's parts: each question cuts the GPU anew.
#include "engine/run/gpu_share.h"

namespace tandem {

GpuShareProbes ThisMachinesShares() {
  return GpuShareProbes{
      .cut_of = ReadGpuCut,
      .measure = [](int gpu, uint32_t parts,
                    uint32_t sms) { return MeasureShares(gpu, CutGpu(gpu, parts, sms)); },
      .run_together = [](int gpu, uint32_t parts,
                         uint32_t sms) { return PartsRunTogether(gpu, CutGpu(gpu, parts, sms)); }};
}

}  // namespace tandem
