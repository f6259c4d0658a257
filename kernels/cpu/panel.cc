#include "kernels/cpu/panel.h"

#include <cstring>

#include "engine/model/quant_block.h"

namespace tandem::cpu {
namespace {

// A block of one lane on its way into a panel, its bytes in the panel's order: dwords, then halves,
// then dwords. The unit at offset `at` of `size` bytes goes to at * lanes + lane * size.
struct LaneShape {
  uint32_t dwords;
  uint32_t halves;
  uint32_t more_dwords;
};

LaneShape ShapeOf(DType type) {
  switch (type) {
    case DType::kQ8_0:
      return {8, 1, 0};
    case DType::kQ4_0:
      return {4, 1, 0};
    case DType::kQ4_1:
      return {4, 2, 0};
    case DType::kQ5_0:
      return {5, 1, 0};
    case DType::kQ5_1:
      return {5, 2, 0};
    case DType::kQ4_K:
      return {3, 2, 8 * 4};
    case DType::kQ5_K:
      return {3, 2, 8 * 5};
    case DType::kQ6_K:
      return {4, 1, 8 * 6};
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
  }
  return {};
}

// Calls copy(offset in the packed block, offset in the lane's block, bytes) for every unit.
template <typename Copy>
void ForEachUnit(const LaneShape& shape, uint64_t lanes, uint64_t lane, Copy copy) {
  uint64_t at = 0;
  const auto run = [&](uint32_t count, uint64_t size) {
    for (uint32_t i = 0; i < count; ++i, at += size) copy(at * lanes + lane * size, at, size);
  };
  run(shape.dwords, 4);
  run(shape.halves, 2);
  run(shape.more_dwords, 4);
}

// 32 codes as 16 bytes of nibbles and, four bytes at a time, their higher bits.
void PutGroup(const uint8_t* codes, uint32_t high_bits, uint8_t* out) {
  for (uint32_t i = 0; i < 16; ++i) {
    out[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + 16] & 15) << 4);
  }
  if (high_bits == 0) return;
  const uint32_t steps = 8 / high_bits;  // fours of columns in a dword
  for (uint32_t i = 0; i < 4 * high_bits; ++i) {
    uint32_t byte = 0;
    for (uint32_t k = 0; k < steps; ++k) {
      byte |= uint32_t{codes[i / 4 * 4 * steps + 4 * k + i % 4]} >> 4 << (k * high_bits);
    }
    out[16 + i] = static_cast<uint8_t>(byte);
  }
}

void TakeGroup(const uint8_t* in, uint32_t high_bits, uint8_t* codes) {
  for (uint32_t i = 0; i < 16; ++i) {
    codes[i] = in[i] & 15;
    codes[i + 16] = in[i] >> 4;
  }
  if (high_bits == 0) return;
  const uint32_t steps = 8 / high_bits;
  const uint32_t mask = (1u << high_bits) - 1;
  for (uint32_t column = 0; column < 32; ++column) {
    const uint32_t four = column / 4;
    const uint32_t byte = in[16 + four / steps * 4 + column % 4];
    codes[column] |= static_cast<uint8_t>((byte >> (four % steps * high_bits) & mask) << 4);
  }
}

// The bytes of a block that are copied as they are.
struct Regrouping {
  uint32_t stored_header;  // where the stored block has the bytes that become...
  uint32_t lane_header;    // ...these of the lane's
  uint32_t header_bytes;
  uint32_t stored_tail;  // a second such part
  uint32_t lane_tail;
  uint32_t tail_bytes;
};

// K types: scales first, then d (and dmin), then the groups. Others: groups, then d (and m).
Regrouping RegroupingOf(DType type) {
  switch (type) {
    case DType::kQ8_0:
      return {0, 32, 2, 2, 0, 32};
    case DType::kQ4_0:
      return {0, 16, 2, 2, 0, 16};
    case DType::kQ4_1:
      return {0, 16, 4, 4, 0, 16};
    case DType::kQ5_0:
      return {0, 20, 2, 0, 0, 0};
    case DType::kQ5_1:
      return {0, 20, 4, 0, 0, 0};
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {4, 0, kKScaleBytes, 0, kKScaleBytes, 4};
    case DType::kQ6_K:
      return {192, 0, 16, 208, 16, 2};
    default:
      return {0, 0, Traits(type).block_bytes, 0, 0, 0};
  }
}

// Types whose stored elements are in the panel's order already.
bool KeepsElements(DType type) {
  const PanelFormat format = FormatOf(type);
  return !format.sub_scales && format.bits != 5;
}

void ToLane(DType type, const std::byte* stored, std::byte* lane) {
  const Regrouping map = RegroupingOf(type);
  std::memcpy(lane + map.lane_header, stored + map.stored_header, map.header_bytes);
  std::memcpy(lane + map.lane_tail, stored + map.stored_tail, map.tail_bytes);
  if (KeepsElements(type)) return;
  int8_t q[kMaxBlockElems];
  uint8_t codes[kMaxBlockElems];
  ReadCodes(type, stored, q);
  const PanelFormat format = FormatOf(type);
  const uint32_t elems = Traits(type).block_elems;
  for (uint32_t i = 0; i < elems; ++i) codes[i] = static_cast<uint8_t>(q[i] + format.offset);
  auto* to = reinterpret_cast<uint8_t*>(lane + format.groups_at);
  for (uint32_t i = 0; i < elems; i += 32, to += format.group_bytes) {
    PutGroup(codes + i, format.bits - 4, to);
  }
}

void FromLane(DType type, const std::byte* lane, std::byte* stored) {
  const Regrouping map = RegroupingOf(type);
  std::memcpy(stored + map.stored_header, lane + map.lane_header, map.header_bytes);
  std::memcpy(stored + map.stored_tail, lane + map.lane_tail, map.tail_bytes);
  if (KeepsElements(type)) return;
  int8_t q[kMaxBlockElems];
  uint8_t codes[kMaxBlockElems];
  const PanelFormat format = FormatOf(type);
  const uint32_t elems = Traits(type).block_elems;
  const auto* from = reinterpret_cast<const uint8_t*>(lane + format.groups_at);
  for (uint32_t i = 0; i < elems; i += 32, from += format.group_bytes) {
    TakeGroup(from, format.bits - 4, codes + i);
  }
  for (uint32_t i = 0; i < elems; ++i) q[i] = static_cast<int8_t>(codes[i] - format.offset);
  WriteCodes(type, q, stored);
}

constexpr uint32_t kMaxBlockBytes = 256;  // of any type

// A panel of a plain type: columns one after the other.
template <typename Element>
void PackColumns(const PanelLayout& layout, const std::byte* stored, uint64_t row_bytes,
                 uint64_t rows, std::byte* panel) {
  const uint64_t cols = layout.cols;
  const uint64_t lanes = layout.lanes;
  for (uint64_t lane = 0; lane < rows; ++lane) {
    const std::byte* from = stored + lane * row_bytes;
    std::byte* to = panel + lane * sizeof(Element);
    for (uint64_t c = 0; c < cols; ++c) {
      std::memcpy(to + c * lanes * sizeof(Element), from + c * sizeof(Element), sizeof(Element));
    }
  }
}

}  // namespace

void PackPanel(const PanelLayout& layout, const std::byte* stored, uint64_t row_bytes,
               uint64_t rows, std::byte* panel) {
  const LaneShape shape = ShapeOf(layout.type);
  const uint64_t stored_block = Traits(layout.type).block_bytes;
  const uint64_t blocks = layout.cols / Traits(layout.type).block_elems;
  if (rows < layout.lanes) std::memset(panel, 0, layout.PanelBytes());
  if (!Traits(layout.type).quantized) {
    return stored_block == 2 ? PackColumns<uint16_t>(layout, stored, row_bytes, rows, panel)
                             : PackColumns<uint32_t>(layout, stored, row_bytes, rows, panel);
  }
  for (uint64_t b = 0; b < blocks; ++b) {
    std::byte* to = panel + b * layout.BlockBytes();
    for (uint64_t lane = 0; lane < rows; ++lane) {
      std::byte block[kMaxBlockBytes];
      ToLane(layout.type, stored + lane * row_bytes + b * stored_block, block);
      ForEachUnit(shape, layout.lanes, lane, [&](uint64_t packed, uint64_t at, uint64_t bytes) {
        std::memcpy(to + packed, block + at, bytes);
      });
    }
  }
}

void UnpackRow(const PanelLayout& layout, const std::byte* packed, uint64_t row, uint64_t col,
               uint64_t cols, std::byte* stored) {
  const LaneShape shape = ShapeOf(layout.type);
  const uint64_t stored_block = Traits(layout.type).block_bytes;
  const uint64_t blocks = cols / Traits(layout.type).block_elems;
  const std::byte* from = packed + layout.Offset(row / layout.lanes, col);
  if (!Traits(layout.type).quantized) {
    for (uint64_t c = 0; c < cols; ++c) {
      std::memcpy(stored + c * stored_block,
                  from + (c * layout.lanes + row % layout.lanes) * stored_block, stored_block);
    }
    return;
  }
  for (uint64_t b = 0; b < blocks; ++b, from += layout.BlockBytes()) {
    std::byte block[kMaxBlockBytes];
    ForEachUnit(shape, layout.lanes, row % layout.lanes,
                [&](uint64_t at, uint64_t lane_at, uint64_t bytes) {
                  std::memcpy(block + lane_at, from + at, bytes);
                });
    FromLane(layout.type, block, stored + b * stored_block);
  }
}

}  // namespace tandem::cpu
