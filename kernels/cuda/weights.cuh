// Reading packed weights: a lane's part of a group of columns (layout.h), for the rows g and g + 8
// of lane 4g + t.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/matmul.h"

namespace tandem::cuda {

template <typename T>
__device__ __forceinline__ T ReadAs(const std::byte* at) {
  return *reinterpret_cast<const T*>(at);
}
template <typename T>
__device__ __forceinline__ T ReadOnce(const std::byte* at) {
  return LoadOnce(reinterpret_cast<const T*>(at));
}

__device__ __forceinline__ uint32_t At(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
__device__ __forceinline__ float At(const float4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// Four 16-bit values in order.
__device__ __forceinline__ uint16_t HalfAt(const uint2& v, int i) {
  return static_cast<uint16_t>((i < 2 ? v.x : v.y) >> (16 * (i % 2)));
}

// The part that panel `panel` of a call belongs to; `panel` becomes its number in that part's
// packed matrix.
__device__ __forceinline__ const MatMulPart& PartOf(const MatMulCall& call, uint32_t& panel) {
  uint32_t i = 0;
  while (i + 1 < call.n_parts && panel >= call.parts[i + 1].first_panel) ++i;
  panel += call.parts[i].row_begin / kPanelRows - call.parts[i].first_panel;
  return call.parts[i];
}

// Whether four blocks from `block` on are one packed group, all of them before `end`.
__device__ __forceinline__ bool IsWhole(uint32_t block, uint32_t end) {
  return block % kGroupBlocks == 0 && block + kGroupBlocks <= end;
}

// A lane's bits of one group of a quantised type. Blocks past the row's end are zeros.
// kStreamed: read from global memory, once; otherwise from shared memory.
template <DType kType, bool kStreamed = true>
struct QuantGroup {
  static constexpr bool kLong = FormatOf(kType).header != 0;  // blocks of 256

  uint4 codes[2][FormatOf(kType).sections];
  uint4 high[2][FormatOf(kType).high > 0 ? FormatOf(kType).high : 1];
  uint4 header[2];
  uint2 fields[2][2];  // 32-column types: halves of d and m of four blocks; Q6_K: d in fields[r][0]

  template <typename T>
  static __device__ __forceinline__ T Read(const std::byte* at) {
    return kStreamed ? ReadOnce<T>(at) : ReadAs<T>(at);
  }

  // Blocks [block, block + 4) of the packed row, of which those before `end` are read.
  __device__ __forceinline__ void Load(const std::byte* panel, uint32_t block, uint32_t end,
                                       uint32_t packed_blocks, uint32_t lane) {
    const uint32_t g = lane / 4, t = lane % 4;
    if (IsWhole(block, end)) {
      LoadWhole(panel + GroupAt(FormatOf(kType), block / kGroupBlocks), g, t);
    } else {
      LoadBlocks(panel, block, end, packed_blocks, g, t);
    }
    if constexpr (kLong) LoadHeader(panel + HeaderAt(FormatOf(kType), block / kGroupBlocks), g);
  }

  // A whole group at `base`, in global memory or a copy of it in shared memory.
  __device__ __forceinline__ void LoadWhole(const std::byte* base, uint32_t g, uint32_t t) {
#pragma unroll
    for (uint32_t r = 0; r < 2; ++r) {
      const uint32_t row = g + 8 * r;
#pragma unroll
      for (uint32_t s = 0; s < FormatOf(kType).sections; ++s) {
        codes[r][s] = Read<uint4>(base + ((s * kPanelRows + row) * 4 + t) * 16);
      }
#pragma unroll
      for (uint32_t p = 0; p < FormatOf(kType).high; ++p) {
        high[r][p] = Read<uint4>(base + FormatOf(kType).HighAt(kGroupBlocks) +
                                 (row * FormatOf(kType).high + p) * 16);
      }
#pragma unroll
      for (uint32_t f = 0; f < FormatOf(kType).fields; ++f) {
        fields[r][f] =
            Read<uint2>(base + FormatOf(kType).FieldsAt(kGroupBlocks) + (f * kPanelRows + row) * 8);
      }
    }
  }

  // Block by block: the end of a row, and slices that start within a packed group.
  __device__ __forceinline__ void LoadBlocks(const std::byte* panel, uint32_t block, uint32_t end,
                                             uint32_t packed_blocks, uint32_t g, uint32_t t) {
    for (uint32_t r = 0; r < 2; ++r) {
      const uint32_t row = g + 8 * r;
      uint32_t code[FormatOf(kType).sections][4] = {};
      uint32_t more[FormatOf(kType).high > 0 ? FormatOf(kType).high : 1][4] = {};
      uint32_t half[2][4] = {};
#pragma unroll
      for (uint32_t j = 0; j < kGroupBlocks; ++j) {
        if (block + j >= end) continue;
        const uint32_t group = (block + j) / kGroupBlocks;
        const uint32_t in = (block + j) % kGroupBlocks;
        const uint32_t nb = BlocksInGroup(packed_blocks, group);
        const std::byte* base = panel + GroupAt(FormatOf(kType), group);
        for (uint32_t s = 0; s < FormatOf(kType).sections; ++s) {
          code[s][j] = ReadAs<uint32_t>(base + 4 * (((s * kPanelRows + row) * 4 + t) * nb + in));
        }
        for (uint32_t p = 0; p < FormatOf(kType).high; ++p) {
          more[p][j] = ReadAs<uint32_t>(base + FormatOf(kType).HighAt(nb) +
                                        4 * ((row * FormatOf(kType).high + p) * nb + in));
        }
        for (uint32_t f = 0; f < FormatOf(kType).fields; ++f) {
          half[f][j] = ReadAs<uint16_t>(base + FormatOf(kType).FieldsAt(nb) +
                                        2 * ((f * kPanelRows + row) * nb + in));
        }
      }
      for (uint32_t s = 0; s < FormatOf(kType).sections; ++s) {
        codes[r][s] = uint4{code[s][0], code[s][1], code[s][2], code[s][3]};
      }
      for (uint32_t p = 0; p < FormatOf(kType).high; ++p) {
        high[r][p] = uint4{more[p][0], more[p][1], more[p][2], more[p][3]};
      }
      for (uint32_t f = 0; f < FormatOf(kType).fields; ++f) {
        fields[r][f] = uint2{half[f][0] | half[f][1] << 16, half[f][2] | half[f][3] << 16};
      }
    }
  }

  // Of a K type, from the header of its block of 256 at `base`.
  __device__ __forceinline__ void LoadHeader(const std::byte* base, uint32_t g) {
#pragma unroll
    for (uint32_t r = 0; r < 2; ++r) {
      header[r] = ReadAs<uint4>(base + (g + 8 * r) * 16);
      if constexpr (kType == DType::kQ6_K) {
        fields[r][0].x = ReadAs<uint16_t>(base + kPanelRows * 16 + (g + 8 * r) * 2);
      }
    }
  }

  // Codes of block j as tensor-core fragments: [0] row g, [1] row g + 8, columns 4t..4t+3; [2] and
  // [3] columns 16 + 4t...  The offset is still in.
  __device__ __forceinline__ void Fragments(int j, uint32_t t, uint32_t (&a)[4]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t word = At(codes[r][0], j);
      if constexpr (FormatOf(kType).sections == 2) {
        a[r] = word;
        a[2 + r] = At(codes[r][1], j);
        continue;
      }
      a[r] = word & 0x0f0f0f0fu;
      a[2 + r] = (word >> 4) & 0x0f0f0f0fu;
      if constexpr (FormatOf(kType).high == 1) {
        const uint32_t bits = At(high[r][0], j) >> t;
        a[r] |= (bits & 0x01010101u) << 4;
        a[2 + r] |= ((bits >> 4) & 0x01010101u) << 4;
      }
      if constexpr (FormatOf(kType).high == 2) {
        a[r] |= ((At(high[r][0], j) >> (2 * t)) & 0x03030303u) << 4;
        a[2 + r] |= ((At(high[r][1], j) >> (2 * t)) & 0x03030303u) << 4;
      }
    }
  }

  // What the integers of block j are multiplied by, and what is added; odd: the second group of a
  // block of 256. For Q6_K `scale` is d alone.
  __device__ __forceinline__ void Scales(int r, int j, bool odd, float& scale, float& added) const {
    added = 0.0f;
    if constexpr (!kLong) {
      scale = HalfToFloat(HalfAt(fields[r][0], j));
      if constexpr (FormatOf(kType).minimum) added = HalfToFloat(HalfAt(fields[r][1], j));
    } else if constexpr (kType == DType::kQ6_K) {
      scale = HalfToFloat(static_cast<uint16_t>(fields[r][0].x));
    } else {
      const uint4& h = header[r];
      const uint32_t scales =
          odd ? (h.w & 0x0f0f0f0fu) | ((h.y >> 2) & 0x30303030u) : h.y & 0x3f3f3f3fu;
      const uint32_t minima =
          odd ? ((h.w >> 4) & 0x0f0f0f0fu) | ((h.z >> 2) & 0x30303030u) : h.z & 0x3f3f3f3fu;
      scale =
          HalfToFloat(static_cast<uint16_t>(h.x)) * static_cast<float>((scales >> (8 * j)) & 0xffu);
      added = -(HalfToFloat(static_cast<uint16_t>(h.x >> 16)) *
                static_cast<float>((minima >> (8 * j)) & 0xffu));
    }
  }

  // Q6_K: the scale of 16 columns, half 0 or 1 of block j.
  __device__ __forceinline__ float HalfScale(int r, int j, int half, bool odd) const {
    const uint4& h = header[r];
    const uint32_t word = odd ? (j < 2 ? h.z : h.w) : (j < 2 ? h.x : h.y);
    return static_cast<float>(static_cast<int8_t>(word >> (16 * (j % 2) + 8 * half)));
  }
};

// A warp brings [at, at + bytes) of a panel, at most 4 KiB, into L2.
__device__ __forceinline__ void FetchAhead(const std::byte* panel, uint64_t at, uint32_t bytes,
                                           uint64_t panel_bytes) {
  const uint32_t mine = threadIdx.x % 32 * 128;
  if (mine < bytes && at + mine < panel_bytes) PrefetchL2(panel + at + mine);
}
// The same of a packed group, with the header of its block of 256 where that comes before it.
template <DType kType>
__device__ __forceinline__ void FetchGroupAhead(const std::byte* panel, uint32_t group,
                                                uint64_t panel_bytes) {
  constexpr QuantFormat kFormat = FormatOf(kType);
  const bool headed = kFormat.header != 0 && group % 2 == 0;
  const uint64_t at = headed ? HeaderAt(FormatOf(kType), group) : GroupAt(FormatOf(kType), group);
  FetchAhead(panel, at,
             kFormat.GroupBytes(kGroupBlocks) + (headed ? kPanelRows * kFormat.header : 0),
             panel_bytes);
}

// A lane's part of 16 bytes a unit and row of a plain type: units `first + t + 4i` of rows g and
// g + 8. Columns from `end` on are zeros.
template <DType kType, int kUnits>
struct PlainGroup {
  uint4 units[2][kUnits];

  __device__ __forceinline__ void Load(const std::byte* panel, uint32_t col, uint32_t end,
                                       uint32_t packed_cols, uint32_t lane) {
    constexpr uint32_t kCols = UnitCols(kType);
    const uint32_t g = lane / 4, t = lane % 4;
#pragma unroll
    for (uint32_t i = 0; i < kUnits; ++i) {
      const uint32_t first = col + (t + 4 * i) * kCols;
#pragma unroll
      for (uint32_t r = 0; r < 2; ++r) {
        if (col % kCols == 0 && first + kCols <= end) {
          units[r][i] = ReadOnce<uint4>(panel + uint64_t{first} * (kPanelRows * PlainBytes(kType)) +
                                        (g + 8 * r) * 16);
        } else {
          units[r][i] = Gather(panel, first, end, packed_cols, g + 8 * r);
        }
      }
    }
  }

  static __device__ __forceinline__ uint4 Gather(const std::byte* panel, uint32_t first,
                                                 uint32_t end, uint32_t packed_cols, uint32_t row) {
    uint32_t words[4] = {};
#pragma unroll
    for (uint32_t i = 0; i < UnitCols(kType); ++i) {
      if (first + i >= end) continue;
      const std::byte* at = panel + PlainAt(kType, packed_cols, row, first + i);
      if constexpr (kType == DType::kF32) {
        words[i] = ReadAs<uint32_t>(at);
      } else {
        words[i / 2] |= uint32_t{ReadAs<uint16_t>(at)} << (16 * (i % 2));
      }
    }
    return uint4{words[0], words[1], words[2], words[3]};
  }
};

}  // namespace tandem::cuda
