#include <cstring>

#include "engine/base/check.h"
#include "engine/model/quant_block.h"
#include "kernels/cuda/layout.h"

namespace tandem::cuda {
namespace {

void Put(std::byte* at, uint32_t value) { std::memcpy(at, &value, sizeof(value)); }

// Codes of 32 columns (with their offset still in), in their places of a group.
void PackBlock(const QuantFormat& format, const uint8_t* codes, uint32_t row, uint32_t block,
               uint32_t nb, std::byte* group) {
  uint32_t dwords[2][4] = {};
  uint32_t high[2] = {};
  for (uint32_t i = 0; i < kBlockCols; ++i) {
    const uint32_t half = i / 16, t = i % 16 / 4, shift = i % 4 * 8;
    const uint32_t code = codes[i];
    if (format.sections == 2) {
      dwords[half][t] |= code << shift;
      continue;
    }
    dwords[0][t] |= (code & 15) << (shift + 4 * half);
    if (format.high == 1) high[0] |= (code >> 4) << (shift + i / 4);
    if (format.high == 2) high[half] |= (code >> 4) << (shift + 2 * t);
  }
  for (uint32_t section = 0; section < format.sections; ++section) {
    for (uint32_t t = 0; t < 4; ++t) {
      const uint32_t at = ((section * kPanelRows + row) * 4 + t) * nb + block;
      Put(group + 4 * at, dwords[section][t]);
    }
  }
  for (uint32_t part = 0; part < format.high; ++part) {
    const uint32_t at = (row * format.high + part) * nb + block;
    Put(group + format.HighAt(nb) + 4 * at, high[part]);
  }
}

// Stored block `index` (of 32 columns, or 256) of one row.
void PackQuantBlock(DType type, const std::byte* stored, uint32_t row, uint32_t index,
                    uint32_t blocks, std::byte* panel) {
  const QuantFormat format = FormatOf(type);
  int8_t q[kMaxBlockElems];
  uint8_t codes[kMaxBlockElems];
  ReadCodes(type, stored, q);
  const uint32_t subs = Traits(type).block_elems / kBlockCols;
  for (uint32_t i = 0; i < subs * kBlockCols; ++i) {
    codes[i] = static_cast<uint8_t>(q[i] + format.offset);
  }
  for (uint32_t sub = 0; sub < subs; ++sub) {
    const uint32_t block = index * subs + sub;
    const uint32_t group = block / kGroupBlocks;
    PackBlock(format, codes + sub * kBlockCols, row, block % kGroupBlocks,
              BlocksInGroup(blocks, group), panel + GroupAt(format, group));
  }
  if (subs == 1) {
    const uint32_t group = index / kGroupBlocks;
    const uint32_t nb = BlocksInGroup(blocks, group);
    std::byte* fields = panel + GroupAt(format, group) + format.FieldsAt(nb);
    for (uint32_t f = 0; f < format.fields; ++f) {
      std::memcpy(fields + 2 * ((f * kPanelRows + row) * nb + index % kGroupBlocks), stored + 2 * f,
                  2);
    }
    return;
  }
  std::byte* header = panel + HeaderAt(format, 2 * index);
  std::memcpy(header + row * 16, stored + (type == DType::kQ6_K ? 192 : 0), 16);
  if (type == DType::kQ6_K) std::memcpy(header + kPanelRows * 16 + row * 2, stored + 208, 2);
}

}  // namespace

void PackPanel(DType type, const std::byte* stored, uint64_t row_bytes, uint32_t rows,
               uint32_t cols, std::byte* panel) {
  Check(rows <= kPanelRows, "kernels/cuda: rows of a panel");
  const DTypeTraits& traits = Traits(type);
  std::memset(panel, 0, kPanelRows * RowBytes(type, cols));
  for (uint32_t row = 0; row < rows; ++row) {
    const std::byte* from = stored + row * row_bytes;
    if (!traits.quantized) {
      for (uint32_t col = 0; col < cols; col += UnitCols(type)) {
        const uint32_t width = cols - col < UnitCols(type) ? cols - col : UnitCols(type);
        std::memcpy(panel + PlainAt(type, cols, row, col), from + col * PlainBytes(type),
                    width * PlainBytes(type));
      }
      continue;
    }
    for (uint32_t index = 0; index < cols / traits.block_elems; ++index) {
      PackQuantBlock(type, from + index * traits.block_bytes, row, index, cols / kBlockCols, panel);
    }
  }
}

}  // namespace tandem::cuda
