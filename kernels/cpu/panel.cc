#include "kernels/cpu/panel.h"

#include <cstring>

namespace tandem::cpu {
namespace {

// A stored block is `halves` f16 fields, then `pieces` pieces of `piece_bytes` bytes. Packed, the
// pieces come first (each interleaved over the lanes), then the fields.
struct BlockShape {
  uint32_t halves;
  uint32_t pieces;
  uint32_t piece_bytes;
};

BlockShape ShapeOf(DType type) {
  switch (type) {
    case DType::kQ4_0:
      return {1, 4, 4};
    case DType::kQ4_1:
      return {2, 4, 4};
    case DType::kQ8_0:
      return {1, 8, 4};
    default:
      return {0, 1, Traits(type).block_bytes};
  }
}

// Calls copy(packed offset, stored offset, bytes) for every part of one lane's block.
template <typename Copy>
void ForEachPart(const BlockShape& shape, uint32_t lanes, uint64_t lane, Copy copy) {
  const uint64_t header = uint64_t{2} * shape.halves;
  for (uint32_t p = 0; p < shape.pieces; ++p) {
    copy((uint64_t{p} * lanes + lane) * shape.piece_bytes, header + p * shape.piece_bytes,
         shape.piece_bytes);
  }
  const uint64_t fields = uint64_t{shape.pieces} * lanes * shape.piece_bytes;
  for (uint32_t h = 0; h < shape.halves; ++h) {
    copy(fields + (uint64_t{h} * lanes + lane) * 2, uint64_t{2} * h, 2u);
  }
}

// The pairs of BF16 columns of one panel.
void PackPairs(const PanelLayout& layout, const std::byte* stored, uint64_t row_bytes,
               uint64_t rows, std::byte* panel) {
  for (uint64_t lane = 0; lane < rows; ++lane) {
    const std::byte* from = stored + lane * row_bytes;
    for (uint64_t col = 0; col < layout.cols; col += 2) {
      const uint64_t bytes = col + 1 < layout.cols ? 4 : 2;
      std::memcpy(panel + layout.Offset(0, col) + 4 * lane, from + 2 * col, bytes);
    }
  }
}

}  // namespace

void PackPanel(const PanelLayout& layout, const std::byte* stored, uint64_t row_bytes,
               uint64_t rows, std::byte* panel) {
  const BlockShape shape = ShapeOf(layout.type);
  const uint64_t stored_block = Traits(layout.type).block_bytes;
  const uint64_t blocks = layout.cols / Traits(layout.type).block_elems;
  const bool whole = rows == layout.lanes && layout.cols % layout.BlockElems() == 0;
  if (!whole) std::memset(panel, 0, layout.PanelBytes());
  if (layout.paired()) return PackPairs(layout, stored, row_bytes, rows, panel);
  for (uint64_t b = 0; b < blocks; ++b) {
    std::byte* to = panel + b * layout.BlockBytes();
    for (uint64_t lane = 0; lane < rows; ++lane) {
      const std::byte* from = stored + lane * row_bytes + b * stored_block;
      ForEachPart(shape, layout.lanes, lane, [&](uint64_t packed, uint64_t plain, uint32_t bytes) {
        std::memcpy(to + packed, from + plain, bytes);
      });
    }
  }
}

void UnpackRow(const PanelLayout& layout, const std::byte* packed, uint64_t row, uint64_t col,
               uint64_t cols, std::byte* stored) {
  const BlockShape shape = ShapeOf(layout.type);
  const uint64_t stored_block = Traits(layout.type).block_bytes;
  const uint64_t blocks = cols / Traits(layout.type).block_elems;
  if (layout.paired()) {
    for (uint64_t c = 0; c < cols; ++c) {
      const std::byte* pair = packed + layout.Offset(row / layout.lanes, col + c);
      std::memcpy(stored + 2 * c, pair + row % layout.lanes * 4 + (col + c) % 2 * 2, 2);
    }
    return;
  }
  const std::byte* from = packed + layout.Offset(row / layout.lanes, col);
  for (uint64_t b = 0; b < blocks; ++b) {
    ForEachPart(shape, layout.lanes, row % layout.lanes,
                [&](uint64_t at, uint64_t plain, uint32_t bytes) {
                  std::memcpy(stored + b * stored_block + plain,
                              from + b * layout.BlockBytes() + at, bytes);
                });
  }
}

}  // namespace tandem::cpu
