// How the CPU back end lays out a weight matrix: panels of `lanes` rows, one row a vector lane, so
// that a panel is read front to back once and every activation is broadcast to all lanes.
//
// Within a panel the columns follow block by block: a block is 32 columns of a quantised type (256
// of a K type), one column of a plain one. It holds the stored bits in another order and takes as
// many bytes; only a last panel that is not full costs more (its missing rows are zeros). For L
// lanes, where "a dword" is L dwords, one a lane, and "a half" is L 16-bit fields, one a lane:
//
//   a group is 32 columns: 4 dwords of nibbles; in dword p, byte j's low nibble is column 4p + j
//   and
//          its high nibble column 16 + 4p + j. Then the higher bits:
//     5-bit: one dword; bit p of byte j is the fifth bit of column 4p + j
//     6-bit: two dwords; bits 2k and 2k+1 of byte j of dword h are those of column 16h + 4k + j
//
//   Q4_0  group | half d                     18 L bytes
//   Q4_1  group | halves d, m                20 L
//   Q5_0  5-bit group | half d               22 L
//   Q5_1  5-bit group | halves d, m          24 L
//   Q8_0  8 dwords, columns 4p..4p+3 | half d                            34 L
//   Q4_K  3 dwords of scales | halves d, dmin | 8 groups                 16 L + 8 * 16 L
//   Q5_K  3 dwords of scales | halves d, dmin | 8 5-bit groups           16 L + 8 * 20 L
//   Q6_K  4 dwords: byte j of dword p is the int8 scale of columns 16 (4p + j)... | half d |
//         8 6-bit groups                                                 18 L + 8 * 24 L
//
// The dwords of scales of Q4_K and Q5_K are the 12 stored bytes: byte j of dword 0 has scale j in
// six bits, of dword 1 minimum j; byte j of dword 2 has the low nibbles of scale 4 + j and, above,
// of minimum 4 + j, whose upper two bits are on top of byte j of dwords 0 and 1.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace tandem::cpu {

// Where the parts of a quantised block are, in bytes for one lane: those of L lanes are at L times
// the offset. Always inlined, so that the files of instruction tiers may use it (tier.h).
struct PanelFormat {
  uint32_t groups;       // of 32 columns in a block
  uint32_t groups_at;    // where the first group starts
  uint32_t group_bytes;  // from group to group
  uint32_t fields_at;    // the halves: d, then m or dmin
  uint32_t block_bytes;
  uint32_t bits;    // of an element
  int32_t offset;   // taken from a stored code to give the weight's integer
  bool minimum;     // Q4_1, Q5_1, Q4_K, Q5_K
  bool sub_scales;  // the K types
};

[[gnu::always_inline]] constexpr PanelFormat FormatOf(DType type) {
  switch (type) {
    case DType::kQ8_0:
      return {1, 0, 32, 32, 34, 8, 0, false, false};
    case DType::kQ4_0:
      return {1, 0, 16, 16, 18, 4, 8, false, false};
    case DType::kQ4_1:
      return {1, 0, 16, 16, 20, 4, 0, true, false};
    case DType::kQ5_0:
      return {1, 0, 20, 20, 22, 5, 16, false, false};
    case DType::kQ5_1:
      return {1, 0, 20, 20, 24, 5, 0, true, false};
    case DType::kQ4_K:
      return {8, 16, 16, 12, 144, 4, 0, true, true};
    case DType::kQ5_K:
      return {8, 16, 20, 12, 176, 5, 0, true, true};
    case DType::kQ6_K:
      return {8, 18, 24, 16, 210, 6, 32, false, true};
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
  }
  return {};
}

struct PanelLayout {
  DType type = DType::kF32;
  uint32_t lanes = 0;
  uint64_t cols = 0;  // packed columns

  uint64_t BlockBytes() const { return uint64_t{lanes} * Traits(type).block_bytes; }
  uint64_t PanelBytes() const { return lanes * RowBytes(type, cols); }
  uint64_t Panels(uint64_t rows) const { return (rows + lanes - 1) / lanes; }
  // Where column `col` of panel `panel` starts.
  uint64_t Offset(uint64_t panel, uint64_t col) const {
    return panel * PanelBytes() + col / Traits(type).block_elems * BlockBytes();
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
