// How the CPU back end lays out a weight matrix: panels of `lanes` rows, one row a vector lane, so
// that a panel is read front to back once and every activation is broadcast to all lanes.
//
// Within a panel the columns follow block by block (a block is 32 columns of a quantised type, one
// column of a plain one). A quantised block holds, for L lanes:
//   4-bit: 4 groups of L dwords; dword `lane` of group p has the stored bytes qs[4p .. 4p+3], so
//   its
//          low nibbles are columns 4p..4p+3 and its high nibbles columns 16+4p..16+4p+3
//   8-bit: 8 groups of L dwords; dword `lane` of group p has columns 4p..4p+3
//   then L f16 scales d, then for Q4_1 L f16 minima m.
// Plain types hold one column of L lanes after the other; BF16, for tiers that multiply pairs, L
// dwords of two neighbouring columns each.
// That is exactly the stored bytes in another order: only a last panel that is not full costs more
// (its missing rows are zeros), and a last BF16 pair that is not (a column of zeros).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace tandem::cpu {

struct PanelLayout {
  DType type = DType::kF32;
  uint32_t lanes = 0;
  uint64_t cols = 0;  // packed columns
  bool bf16_pairs = false;

  bool paired() const { return bf16_pairs && type == DType::kBF16; }
  // Columns that lie together: a block of the type, or a pair.
  uint64_t BlockElems() const { return paired() ? 2 : Traits(type).block_elems; }
  uint64_t BlockBytes() const { return lanes * RowBytes(type, BlockElems()); }
  uint64_t Blocks() const { return (cols + BlockElems() - 1) / BlockElems(); }
  uint64_t PanelBytes() const { return Blocks() * BlockBytes(); }
  uint64_t Panels(uint64_t rows) const { return (rows + lanes - 1) / lanes; }
  // Where column `col` of panel `panel` starts.
  uint64_t Offset(uint64_t panel, uint64_t col) const {
    return panel * PanelBytes() + col / BlockElems() * BlockBytes();
  }
};

// Packs one panel. `rows` (<= lanes) stored rows start at `stored`, row_bytes apart, each already
// at the slice's first column.
void PackPanel(const PanelLayout& layout, const std::byte* stored, uint64_t row_bytes,
               uint64_t rows, std::byte* panel);

// The stored form of columns [col, col + cols) of one packed row.
void UnpackRow(const PanelLayout& layout, const std::byte* packed, uint64_t row, uint64_t col,
               uint64_t cols, std::byte* stored);

}  // namespace tandem::cpu
