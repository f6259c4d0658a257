// A lane's weights of one group of columns as f32, of any type, dequantised as kernels/ref does it.
//
// Lane 4g + t has rows g and g + 8, in runs of four columns. Of lane t, in a group of kCols:
//   quantised (128)  block by block, 4t..4t+3 and 16 + 4t..16 + 4t + 3
//   BF16, F16 (64)   8t..8t+7, 32 + 8t..
//   F32 (64)         4t..4t+3, and 16, 32, 48 further
#pragma once

#include "kernels/cuda/weights.cuh"

namespace tandem::cuda {

// The runs of four columns that a lane has of one group.
template <DType kType, bool kQuant = IsQuantised(kType)>
struct Runs {
  static constexpr uint32_t kCols = 64;
  static constexpr int kRuns = 4;
  PlainGroup<kType, kType == DType::kF32 ? 4 : 2> group;

  __device__ __forceinline__ void Load(const std::byte* panel, uint32_t col, uint32_t end,
                                       uint32_t packed_cols, uint32_t lane) {
    group.Load(panel, col, end, packed_cols, lane);
  }
  static __device__ __forceinline__ uint32_t Column(int run, uint32_t t) {
    return kType == DType::kF32 ? 4 * (t + 4 * run) : 8 * (t + 4 * (run / 2)) + 4 * (run % 2);
  }
  __device__ __forceinline__ void Read(int run, uint32_t, float (&w)[2][4]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if constexpr (kType == DType::kF32) {
          w[r][i] = __uint_as_float(At(group.units[r][run], i));
        } else {
          const uint32_t word = At(group.units[r][run / 2], run % 2 * 2 + i / 2);
          const auto bits = static_cast<uint16_t>(word >> (16 * (i % 2)));
          w[r][i] =
              kType == DType::kF16 ? HalfToFloat(bits) : __uint_as_float(uint32_t{bits} << 16);
        }
      }
    }
  }
};

template <DType kType>
struct Runs<kType, true> {
  static constexpr uint32_t kCols = kGroupCols;
  static constexpr int kRuns = 2 * kGroupBlocks;
  QuantGroup<kType> group;
  bool odd = false;

  __device__ __forceinline__ void Load(const std::byte* panel, uint32_t col, uint32_t end,
                                       uint32_t packed_cols, uint32_t lane) {
    group.Load(panel, col / kBlockCols, end / kBlockCols, packed_cols / kBlockCols, lane);
    odd = col / kGroupCols % 2 != 0;
  }
  static __device__ __forceinline__ uint32_t Column(int run, uint32_t t) {
    return run / 2 * kBlockCols + run % 2 * 16 + 4 * t;
  }
  __device__ __forceinline__ void Read(int run, uint32_t t, float (&w)[2][4]) const {
    const int j = run / 2, half = run % 2;
    uint32_t a[4];
    group.Fragments(j, t, a);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float scale, added;
      group.Scales(r, j, odd, scale, added);
      if constexpr (kType == DType::kQ6_K) scale *= group.HalfScale(r, j, half, odd);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t byte = (a[2 * half + r] >> (8 * i)) & 0xffu;
        const int q = kType == DType::kQ8_0 ? static_cast<int8_t>(byte)
                                            : static_cast<int>(byte) - FormatOf(kType).offset;
        w[r][i] = fmaf(scale, static_cast<float>(q), added);
      }
    }
  }
};

}  // namespace tandem::cuda
