#include "kernels/cuda/library_products.h"

#include <algorithm>

#include "engine/base/check.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/unpack.h"

namespace tandem::cuda {
namespace {

constexpr uint32_t kElementBytes = 2;
// A multiprocessor's part of a product, for the count of waves.
constexpr uint32_t kBlockPanels = 8, kBlockRows = 256;
// What a call costs beside its columns (launch, first loads, stores), in columns.
constexpr uint64_t kCallCols = 512;
constexpr uint32_t kCutCols = 256;  // no type's block is cut
constexpr uint64_t kOutputAlign = 64;

uint64_t DivideUp(uint64_t n, uint64_t by) { return (n + by - 1) / by; }

uint64_t WavesOf(uint32_t panels, const LibraryRoom& room, int sm_count) {
  return DivideUp(DivideUp(panels, kBlockPanels) * DivideUp(room.rows, kBlockRows),
                  static_cast<uint64_t>(std::max(sm_count, 1)));
}

}  // namespace

TileShape ShapeTiles(uint32_t panels, uint32_t cols, const LibraryRoom& room, int sm_count) {
  constexpr uint64_t kPanelColumnBytes = kPanelRows * kElementBytes;
  TileShape best;
  uint64_t best_cost = 0, best_bytes = 0;
  const uint64_t most = room.output_bytes / (uint64_t{room.rows} * kPanelRows * sizeof(float));
  for (auto tile = static_cast<uint32_t>(std::min<uint64_t>(panels, most)); tile > 0;
       tile = tile > kBlockPanels ? (tile - 1) / kBlockPanels * kBlockPanels : tile - 1) {
    uint64_t parts = 1, width = cols;
    if (tile * kPanelColumnBytes * cols > room.weight_bytes) {
      const uint64_t fit = room.weight_bytes / (tile * kPanelColumnBytes) / kCutCols * kCutCols;
      if (fit == 0) continue;
      parts = DivideUp(cols, fit);
      width = DivideUp(DivideUp(cols, parts), kCutCols) * kCutCols;
    }
    const uint64_t waves =
        panels / tile * WavesOf(tile, room, sm_count) + WavesOf(panels % tile, room, sm_count);
    const uint64_t cost = waves * (cols + parts * kCallCols);
    if (best_cost == 0 || cost < best_cost || (cost == best_cost && best_bytes > room.near_bytes)) {
      best = {tile, static_cast<uint32_t>(width)};
      best_cost = cost;
      best_bytes = tile * kPanelColumnBytes * width;
    }
  }
  Check(best.panels > 0, "kernels/cuda: room for a tile of weights");
  return best;
}

// One product's weights and rows.
struct LibraryProducts::Job {
  DType type;
  const MatMulPart& part;
  uint32_t cols, stride;
  uint32_t n;
  const uint16_t* x;
  const GpuStream& stream;
};

// Some panels of a job, and which rows of the packed matrix are wanted of them.
struct LibraryProducts::Tile {
  uint32_t panel, panels;
  uint32_t begin, end;
  uint32_t cols;  // at once

  uint32_t first() const { return panel * kPanelRows; }
  uint32_t outputs() const { return panels * kPanelRows; }
};

LibraryProducts::LibraryProducts(Device& memory, const LibraryRoom& room, int sm_count, bool part)
    : room_(room),
      sm_count_(sm_count),
      weights_(
          memory.Allocate(MemoryUse::kWorkspace, Bytes{room.weight_bytes}, "unpacked weights")),
      outputs_(memory.Allocate(MemoryUse::kWorkspace, Bytes{room.output_bytes}, "padded products")),
      workspace_(
          memory.Allocate(MemoryUse::kWorkspace, Bytes{room.workspace_bytes}, "room of cuBLASLt")),
      products_(MakeTileProducts({.rows = room.rows,
                                  .sm_count = part ? sm_count : 0,
                                  .workspace = workspace_.data(),
                                  .workspace_bytes = room.workspace_bytes})) {}

uint32_t LibraryProducts::Stride(uint32_t cols) {
  return static_cast<uint32_t>(DivideUp(cols, kBf16Cols) * kBf16Cols);
}

void LibraryProducts::Multiply(DType type, const MatMulPart& part, uint32_t cols, uint32_t n,
                               const uint16_t* x, const GpuStream& stream) {
  const Job job{type, part, cols, Stride(cols), n, x, stream};
  const uint32_t first = part.row_begin / kPanelRows, last = (part.row_end - 1) / kPanelRows;
  const TileShape shape = ShapeTiles(last - first + 1, job.stride, room_, sm_count_);
  for (uint32_t panel = first; panel <= last; panel += shape.panels) {
    Tile tile{.panel = panel, .panels = std::min(shape.panels, last - panel + 1)};
    tile.begin = std::max(part.row_begin, tile.first());
    tile.end = std::min(part.row_end, tile.first() + tile.outputs());
    tile.cols = shape.cols;
    for (uint32_t row = 0; row < n;) row = MultiplyRows(job, tile, row);
  }
}

void LibraryProducts::Unpack(const Job& job, const Tile& tile, uint32_t col, uint32_t width) {
  UnpackCall call{.w = job.part.w + tile.panel * job.part.panel_bytes,
                  .panel_bytes = job.part.panel_bytes,
                  .panels = tile.panels,
                  .packed_cols = job.part.packed_cols};
  call.col_begin = job.part.col_begin + col;
  call.cols = std::min(width, job.cols - col);
  call.stride = width;
  call.out = weights_.as<uint16_t>();
  LaunchUnpack(job.type, call, job.stream);
}

// Rows from `first` on: whole calls to their place, and at most one more, apart. Returns the first
// row that is left.
uint32_t LibraryProducts::MultiplyRows(const Job& job, const Tile& tile, uint32_t first) {
  const MatMulPart& part = job.part;
  float* const y = part.y + (tile.begin - part.row_begin);
  const bool in_place = tile.end - tile.begin == tile.outputs() &&
                        reinterpret_cast<uintptr_t>(y) % kOutputAlign == 0 &&
                        part.y_stride * sizeof(float) % kOutputAlign == 0;
  const uint32_t apart = in_place ? first + (job.n - first) / room_.rows * room_.rows : first;
  for (uint32_t col = 0; col < job.stride; col += tile.cols) {
    TileProduct product{.outputs = tile.outputs(), .cols = std::min(tile.cols, job.stride - col)};
    // A tile that is all columns is still there from the rows before.
    if (first == 0 || tile.cols < job.stride) Unpack(job, tile, col, product.cols);
    product.w = weights_.as<const uint16_t>();
    product.x_stride = job.stride;
    product.adds = col > 0;
    const auto multiply = [&](uint32_t row, float* to, uint64_t stride) {
      product.x = job.x + uint64_t{row} * job.stride + col;
      product.y = to;
      product.y_stride = stride;
      products_->Multiply(product, job.stream);
    };
    for (uint32_t row = first; row < apart; row += room_.rows) {
      multiply(row, y + row * part.y_stride, part.y_stride);
    }
    if (apart < job.n) multiply(apart, outputs_.as<float>(), product.outputs);
  }
  if (apart >= job.n) return job.n;
  const uint32_t rows = std::min(room_.rows, job.n - apart);
  CopyRowsOnGpu(y + apart * part.y_stride, part.y_stride * sizeof(float),
                outputs_.as<float>() + (tile.begin - tile.first()), tile.outputs() * sizeof(float),
                (tile.end - tile.begin) * sizeof(float), rows, job.stream);
  return apart + rows;
}

}  // namespace tandem::cuda
