// How the CUDA back end lays out a weight matrix: panels of 16 rows (one tensor-core tile), and in
// a panel groups of columns such that a lane's 16-byte load is its fragments of four tensor-core
// steps. The stored bits are kept, in another order; only rows missing from a last panel cost more.
//
// Quantised types: a group is 4 blocks of 32 columns (fewer at the end of a row); nb says how many.
//   codes   [section][row 16][t 4][block nb] dwords. Nibbles have one section: byte j of dword t is
//           column 4t + j (low nibble) and 16 + 4t + j (high). Q8_0 has two: columns 4t + j, then
//           16 + 4t + j.
//   high    [row 16][part][block nb] dwords. 5-bit types: bit p of byte j is the fifth bit of
//   column
//           4p + j. Q6_K has two parts: bits 2k and 2k + 1 of byte j are those of column
//           16 part + 4k + j.
//   fields  [field][row 16][block nb] halves: d, and where the type has one m. Not in K types.
// K types: a block of 256 is [row 16] 16 bytes (Q4_K, Q5_K: d, dmin and the 12 bytes of scales, as
// stored; Q6_K: its 16 scales), Q6_K then [row 16] d, then two groups.
// Plain types: units of 16 bytes a row (4 or 8 columns), [unit][row 16]; a last unit may be
// shorter.
//
// Lane 4g + t of a warp works on rows g and g + 8.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/model/dtype.h"

namespace tandem::cuda {

inline constexpr uint32_t kPanelRows = 16;
inline constexpr uint32_t kBlockCols = 32;
inline constexpr uint32_t kGroupBlocks = 4;
inline constexpr uint32_t kGroupCols = kGroupBlocks * kBlockCols;

struct QuantFormat {
  uint32_t sections = 0;  // of codes
  uint32_t high = 0;      // parts
  uint32_t fields = 0;    // halves a block and row
  uint32_t header = 0;    // bytes a row before the two groups of a block of 256; 0: blocks of 32
  int32_t offset = 0;     // taken from a stored code to give the weight's integer
  bool minimum = false;

  // Of a group of nb blocks, in a panel.
  constexpr uint32_t GroupBytes(uint32_t nb) const {
    return kPanelRows * nb * (16 * sections + 4 * high + 2 * fields);
  }
  constexpr uint32_t HighAt(uint32_t nb) const { return kPanelRows * nb * 16 * sections; }
  constexpr uint32_t FieldsAt(uint32_t nb) const { return HighAt(nb) + kPanelRows * nb * 4 * high; }
};

constexpr QuantFormat FormatOf(DType type) {
  switch (type) {
    case DType::kQ8_0:
      return {.sections = 2, .fields = 1};
    case DType::kQ4_0:
      return {.sections = 1, .fields = 1, .offset = 8};
    case DType::kQ4_1:
      return {.sections = 1, .fields = 2, .minimum = true};
    case DType::kQ5_0:
      return {.sections = 1, .high = 1, .fields = 1, .offset = 16};
    case DType::kQ5_1:
      return {.sections = 1, .high = 1, .fields = 2, .minimum = true};
    case DType::kQ4_K:
      return {.sections = 1, .header = 16, .minimum = true};
    case DType::kQ5_K:
      return {.sections = 1, .high = 1, .header = 16, .minimum = true};
    case DType::kQ6_K:
      return {.sections = 1, .high = 2, .header = 18, .offset = 32};
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
  }
  return {};
}

constexpr bool IsQuantised(DType type) { return FormatOf(type).sections != 0; }

// Blocks in group `group` of a row of `blocks`.
constexpr uint32_t BlocksInGroup(uint32_t blocks, uint32_t group) {
  const uint32_t left = blocks - group * kGroupBlocks;
  return left < kGroupBlocks ? left : kGroupBlocks;
}

// Where group `group` starts in a panel.
constexpr uint64_t GroupAt(const QuantFormat& format, uint32_t group) {
  const uint64_t whole = format.GroupBytes(kGroupBlocks);
  if (format.header == 0) return group * whole;
  const uint64_t header = kPanelRows * format.header;
  return (group / 2 + 1) * header + group * whole;
}
// Where the header of its block of 256 starts.
constexpr uint64_t HeaderAt(const QuantFormat& format, uint32_t group) {
  return group / 2 * (kPanelRows * format.header + uint64_t{2} * format.GroupBytes(kGroupBlocks));
}

constexpr uint32_t PlainBytes(DType type) { return type == DType::kF32 ? 4 : 2; }
constexpr uint32_t UnitCols(DType type) { return 16 / PlainBytes(type); }

// Where column `col` of row `row` is in a panel of a plain type.
constexpr uint64_t PlainAt(DType type, uint32_t packed_cols, uint32_t row, uint32_t col) {
  const uint32_t unit = col / UnitCols(type);
  const uint32_t left = packed_cols - unit * UnitCols(type);
  const uint32_t width = left < UnitCols(type) ? left : UnitCols(type);
  return uint64_t{unit} * kPanelRows * 16 +
         uint64_t{row * width + col % UnitCols(type)} * PlainBytes(type);
}

// Packs one panel: `rows` (<= 16) stored rows, row_bytes apart, of `cols` columns each.
void PackPanel(DType type, const std::byte* stored, uint64_t row_bytes, uint32_t rows,
               uint32_t cols, std::byte* panel);

// Prepared rows. int8: a struct for every token and group of 128 columns, zeros past the end; the
// dwords stand as the codes do, so that a lane's 16 bytes are its fragments of four blocks.
struct PreparedGroup {
  uint32_t low[4][kGroupBlocks];   // [t][block]: columns 4t..4t+3
  uint32_t high[4][kGroupBlocks];  // columns 16 + 4t..
  float scale[kGroupBlocks];
  int32_t sum[kGroupBlocks];       // of q
  float scaled_sum[kGroupBlocks];  // scale * sum
};
// BF16: rows of whole 64 columns, zeros past the end.
inline constexpr uint32_t kBf16Cols = 64;

}  // namespace tandem::cuda
