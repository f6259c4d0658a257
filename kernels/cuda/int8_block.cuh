// One block of 32 columns of a quantised weight against eight tokens, on tensor cores: the sums are
// exact in int32, and only what int8_block.h says rounds.
//
// The int32 accumulators start at the bits of 1.5 * 2^23 less offset * sum(q), so that their bits
// are those of 1.5 * 2^23 + sum(w * q) as a float (|sum| < 2^22): a subtraction takes the place of
// the slow conversion from integers.
#pragma once

#include "kernels/cuda/weights.cuh"

namespace tandem::cuda {

inline constexpr int32_t kMagicBits = 0x4b400000;
inline constexpr float kMagic = 12582912.0f;

// What a lane needs of the eight tokens of a tile in one block of 32 columns.
//
// Up to four tokens may take two columns each, kFew: column g is token g / 2, and of the lane's two
// columns of sums only the first, of token t, is used: half the scaling.
struct TokenBlock {
  uint32_t b[2];     // of token g: columns 4t.. and 16 + 4t..
  int32_t start[4];  // what a product's sums start from
  float scale[2];    // of tokens 2t and 2t + 1
  float scaled_sum[2];
};

// For tokens whose activations of the block add up to sum[0] and sum[1].
template <DType kType>
__device__ __forceinline__ void SetStart(int32_t sum0, int32_t sum1, TokenBlock& block) {
  // Q6_K's offset is taken from the codes: the sums of its halves are apart.
  constexpr int32_t kOffset = kType == DType::kQ6_K ? 0 : FormatOf(kType).offset;
  block.start[0] = block.start[2] = kMagicBits - (kOffset != 0 ? kOffset * sum0 : 0);
  block.start[1] = block.start[3] = kMagicBits - (kOffset != 0 ? kOffset * sum1 : 0);
}

__device__ __forceinline__ int32_t At(const int4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// The same in a group of four blocks, as it is read at once.
template <DType kType, bool kFew = false>
struct TokenGroup {
  static constexpr uint32_t kColumns = kFew ? 1 : 2;  // of the lane's sums that are used
  uint4 low, high;
  float4 scale[kColumns];
  int4 sum[kColumns];
  float4 scaled_sum[kColumns];

  __device__ __forceinline__ void Load(const PreparedGroup* rows, uint64_t groups, uint32_t group,
                                       uint32_t first, uint32_t n, uint32_t lane) {
    const uint32_t g = lane / 4, t = lane % 4;
    // Tokens past the last one repeat it; their outputs are not stored.
    const PreparedGroup& own = rows[Clamp(first + (kFew ? g / 2 : g), n) * groups + group];
    low = *reinterpret_cast<const uint4*>(own.low[t]);
    high = *reinterpret_cast<const uint4*>(own.high[t]);
#pragma unroll
    for (uint32_t i = 0; i < kColumns; ++i) {
      const PreparedGroup& out = rows[Clamp(first + kColumns * t + i, n) * groups + group];
      scale[i] = *reinterpret_cast<const float4*>(out.scale);
      sum[i] = int4{};
      scaled_sum[i] = float4{};
      if constexpr (FormatOf(kType).offset != 0) sum[i] = *reinterpret_cast<const int4*>(out.sum);
      if constexpr (FormatOf(kType).minimum) {
        scaled_sum[i] = *reinterpret_cast<const float4*>(out.scaled_sum);
      }
    }
  }
  static __device__ __forceinline__ uint64_t Clamp(uint32_t token, uint32_t n) {
    return token < n ? token : n - 1;
  }

  __device__ __forceinline__ TokenBlock Block(int j) const {
    TokenBlock block{{At(low, j), At(high, j)},
                     {},
                     {At(scale[0], j), At(scale[kColumns - 1], j)},
                     {At(scaled_sum[0], j), At(scaled_sum[kColumns - 1], j)}};
    SetStart<kType>(At(sum[0], j), At(sum[kColumns - 1], j), block);
    return block;
  }
};

// A lane's weights of block j: fragments, and for rows g and g + 8 the scale and what is added.
template <DType kType>
struct WeightBlock {
  uint32_t a[4];
  float scale[2];
  float added[2];
  float halves[2][2];  // Q6_K

  template <typename Group>
  __device__ __forceinline__ void Unpack(const Group& group, int j, bool odd, uint32_t t) {
    group.Fragments(j, t, a);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      group.Scales(r, j, odd, scale[r], added[r]);
      if constexpr (kType == DType::kQ6_K) {
        halves[r][0] = group.HalfScale(r, j, 0, odd);
        halves[r][1] = group.HalfScale(r, j, 1, odd);
      }
    }
  }
};

// Each byte, 0 to 63, less 32. With its top bit set no byte borrows from the next.
__device__ __forceinline__ uint32_t LessOffset(uint32_t codes) {
  return ((codes | 0x80808080u) - 0x20202020u) ^ 0x80808080u;
}

__device__ __forceinline__ float FromMagic(int32_t bits) { return __int_as_float(bits) - kMagic; }

// acc: rows g, g + 8 by tokens 2t, 2t + 1, as the tensor core lays them out; kFew: by token t, in
// acc[0] and acc[2].
template <DType kType, bool kFew = false>
__device__ __forceinline__ void AddBlock(const WeightBlock<kType>& w, const TokenBlock& x,
                                         float (&acc)[4]) {
  constexpr QuantFormat kFormat = FormatOf(kType);
  constexpr int kStep = kFew ? 2 : 1;
  if constexpr (kType == DType::kQ6_K) {
    // The sums of the halves apart: the offset is taken from the codes, not from a common sum.
    int32_t c[2][4];
    const uint32_t weights[2][2] = {{w.a[0], w.a[1]}, {w.a[2], w.a[3]}};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t shifted[2] = {LessOffset(weights[half][0]), LessOffset(weights[half][1])};
      MmaS8Half(c[half], shifted, x.b[half], x.start);
    }
#pragma unroll
    for (int i = 0; i < 4; i += kStep) {
      // Every product and sum of the bracket is exact.
      const float bracket =
          fmaf(w.halves[i / 2][1], FromMagic(c[1][i]), w.halves[i / 2][0] * FromMagic(c[0][i]));
      acc[i] = fmaf(w.scale[i / 2] * x.scale[i % 2], bracket, acc[i]);
    }
    return;
  }
  int32_t c[4];
  MmaS8(c, w.a, x.b, x.start);
#pragma unroll
  for (int i = 0; i < 4; i += kStep) {
    acc[i] = fmaf(w.scale[i / 2] * x.scale[i % 2], FromMagic(c[i]), acc[i]);
    if constexpr (kFormat.minimum) {
      acc[i] = fmaf(w.added[i / 2], x.scaled_sum[i % 2], acc[i]);
    }
  }
}

}  // namespace tandem::cuda
