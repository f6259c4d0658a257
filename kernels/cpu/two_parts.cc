#include "kernels/cpu/two_parts.h"

#include <algorithm>

#include "engine/model/panel_rows.h"
#include "kernels/int8_block.h"

namespace tandem::cpu {
namespace {

// Rows taken at a time: a multiple of what tiers put side by side.
constexpr uint64_t kRows = 32;

}  // namespace

void QuantizeTwoParts(const Tier& tier, const float* x, uint64_t blocks, PreparedBlock* out) {
  constexpr uint64_t kAtOnce = 16;
  float left[kAtOnce * kInt8Block];
  for (uint64_t begin = 0; begin < blocks; begin += kAtOnce) {
    const uint64_t count = std::min(kAtOnce, blocks - begin);
    tier.quantize(x + begin * kInt8Block, count, out + begin);
    for (uint64_t b = 0; b < count; ++b) {
      const PreparedBlock& taken = out[begin + b];
      for (uint64_t i = 0; i < kInt8Block; ++i) {
        left[b * kInt8Block + i] =
            x[(begin + b) * kInt8Block + i] - taken.scale * static_cast<float>(taken.q[i]);
      }
    }
    tier.quantize(left, count, out + blocks + begin);
  }
}

// To the kernels a row in two parts is two rows, whose products are then added. Weights come from
// memory once: a few panels and rows are taken at a time, all the panels for some rows.
void MultiplyTwoParts(const Tier& tier, const PanelJob& job) {
  const uint64_t width = kPanelGrain * tier.lanes;
  float products[2 * kRows * kPanelGrain * kMostPanelRows];
  PanelJob part = job;
  part.y = products;
  part.y_stride = width;
  for (uint64_t first = 0; first < job.n; first += kRows) {
    const uint64_t rows = std::min(kRows, job.n - first);
    part.n = 2 * rows;
    part.int8 = job.int8 + 2 * first * (job.cols / kInt8Block);
    float* y = job.y + first * job.y_stride;
    for (uint64_t panel = 0; panel * tier.lanes < job.row_end; panel += kPanelGrain) {
      const uint64_t start = panel * tier.lanes;
      part.panels = job.panels + panel * job.panel_stride;
      part.row_begin = panel == 0 ? job.row_begin : 0;
      part.row_end = std::min(job.row_end - start, width);
      const uint64_t count = part.row_end - part.row_begin;
      tier.matmul_int8(part);
      for (uint64_t t = 0; t < rows; ++t) {
        tier.add(products + 2 * t * width, products + (2 * t + 1) * width, count,
                 y + t * job.y_stride);
      }
      y += count;
    }
  }
}

}  // namespace tandem::cpu
