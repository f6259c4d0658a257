// What the attention kernels share: which positions a query sees, how a query is scaled and split,
// how scores become weights, and how the states of folds are joined. A query goes through the same
// operations in the same order in each of them, so they give the same bits.
//
// A query, and a weight, is a sum of two f16 (AttentionPrecision::kSplit: hi and lo), or one
// (kHalf), so a tensor-core step is two or one. kHalf takes powers of two, which are one
// instruction: its scores come in units of log 2.
//
// Fragments are those of mma.sync.m16n8k16: lane 4g + t holds queries g and g + 8 of 16, and of
// each eight positions or columns 2t and 2t + 1.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/weights.cuh"

namespace tandem::cuda {

constexpr uint32_t kFoldPages = kAttentionFold / kPageTokens;
// Weights are so many times as large, which keeps small ones, or their low parts, normal in f16.
constexpr float kWeightScale = 1024.0f;

template <AttentionPrecision kPrecision>
constexpr uint32_t kParts = kPrecision == AttentionPrecision::kSplit ? 2 : 1;

template <AttentionPrecision kPrecision>
__device__ __forceinline__ float Power(float score) {
  if constexpr (kPrecision == AttentionPrecision::kSplit) {
    return expf(score);
  } else {
    return FastExp2(score);
  }
}

// The positions that a query sees: [first, count).
struct Sight {
  uint32_t first, count;
  __device__ __forceinline__ bool Sees(uint32_t position) const {
    return position >= first && position < count;
  }
};

__device__ __forceinline__ Sight SightOf(const AttentionTile& tile, uint32_t group, uint32_t window,
                                         uint32_t query) {
  // Queries past the tile's last one repeat it.
  const uint32_t own = tile.first_query + (query < tile.n ? query : tile.n - 1);
  const uint32_t count = tile.start + own / group + 1;
  return {window > 0 && window < count ? count - window : 0, count};
}

// Where the elements of a tile's query lie, in q and in the output.
__device__ __forceinline__ uint64_t QueryAt(const AttentionCall& call, const AttentionTile& tile,
                                            uint32_t kv_head, uint32_t query) {
  const uint32_t group = call.q_heads / call.kv.kv_heads, own = tile.first_query + query;
  return ((uint64_t{tile.first_row} + own / group) * call.q_heads + kv_head * group + own % group) *
         call.kv.head_dim;
}

// The keys of page `index` of a tile's sequence; its values lie call.kv.kv_heads heads later.
__device__ __forceinline__ const uint16_t* KeysOf(const AttentionCall& call,
                                                  const AttentionTile& tile, uint32_t kv_head,
                                                  uint32_t index) {
  const auto page = static_cast<uint64_t>(call.pages[tile.pages + index]);
  return reinterpret_cast<const uint16_t*>(call.kv.base + page * call.kv.stride) +
         uint64_t{kv_head} * kPageTokens * call.kv.head_dim;
}

// One query vector by eight lanes, of which this is lane `first`: padded with zeros, times a power
// of two that brings the largest element to [2^10, 2^11), and made f16. put(part, d, bits) takes
// them. Zeros where not real. Returns what scores are multiplied by. Called by whole warps.
template <uint32_t kDim, AttentionPrecision kPrecision, typename Put>
__device__ __forceinline__ float LoadQuery(const float* from, bool real, uint32_t hd,
                                           uint32_t first, const Put& put) {
  float top = 0.0f;
  if (real) {
    for (uint32_t d = first; d < hd; d += 8) top = fmaxf(top, fabsf(from[d]));
  }
#pragma unroll
  for (int mask = 1; mask < 8; mask *= 2) top = fmaxf(top, ShuffleXor(top, mask));
  int exponent = static_cast<int>((__float_as_uint(top) >> 23) & 0xffu) - 127;
  exponent = exponent < -100 ? 10 : exponent > 127 ? 10 : exponent;  // zeros; infinities
  const float scale = __uint_as_float(static_cast<uint32_t>(127 + 10 - exponent) << 23);
  for (uint32_t d = first; d < kDim; d += 8) {
    const float value = real && d < hd ? from[d] * scale : 0.0f;
    const uint16_t bits = FloatToHalf(value);
    put(0, d, bits);
    if (kParts<kPrecision> == 2) put(1, d, FloatToHalf(value - HalfToFloat(bits)));
  }
  const float back = __uint_as_float(static_cast<uint32_t>(127 - 10 + exponent) << 23);
  const float factor = back / sqrtf(static_cast<float>(hd));
  return kPrecision == AttentionPrecision::kSplit ? factor : factor * 1.44269504f;
}

// State before and after, with the later fold joined to it.
struct JoinScales {
  float m, before, after;
};
template <AttentionPrecision kPrecision>
__device__ __forceinline__ JoinScales ScalesOf(float m, float later) {
  const float top = fmaxf(m, later);
  return {top, Power<kPrecision>(m - top), Power<kPrecision>(later - top)};
}
__device__ __forceinline__ float Joined(float value, float later, const JoinScales& s) {
  return fmaf(value, s.before, later * s.after);
}

// A lane's part of the state of one fold, or of all folds so far: queries g and g + 8, and of
// kTiles times eight columns 2t and 2t + 1 of each eight.
template <uint32_t kTiles, AttentionPrecision kPrecision>
struct State {
  float m[2], l[2];
  float o[kTiles][4];

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      m[r] = -INFINITY;
      l[r] = 0.0f;
    }
#pragma unroll
    for (uint32_t tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) o[tile][i] = 0.0f;
    }
  }

  // A fold has ended: l becomes the sum over all lanes' positions.
  __device__ __forceinline__ void SumLanes() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      l[r] += ShuffleXor(l[r], 1);
      l[r] += ShuffleXor(l[r], 2);
    }
  }

  __device__ __forceinline__ void Join(const State& later) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (later.l[r] == 0.0f) continue;  // sees nothing of that fold
      const bool first = l[r] == 0.0f;
      const JoinScales s = ScalesOf<kPrecision>(m[r], later.m[r]);
      l[r] = first ? later.l[r] : Joined(l[r], later.l[r], s);
      m[r] = first ? later.m[r] : s.m;
#pragma unroll
      for (uint32_t tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          o[tile][i] = first ? later.o[tile][i] : Joined(o[tile][i], later.o[tile][i], s);
        }
      }
    }
  }
};

// A page's part of an online softmax: what its scores are taken relative to, what brings the state
// to that, and the sum of its weights over the lane's own positions. Of queries g and g + 8.
struct Softmax {
  float base[2], before[2], sum[2];
};

// Begins with the scores of one page, -INFINITY where a query does not see a position: p[r][i] of
// query g + 8r and position 8 (i / 2) + 2t + i % 2.
template <uint32_t kTiles, AttentionPrecision kPrecision>
__device__ __forceinline__ Softmax BeginPage(const float (&p)[2][16],
                                             State<kTiles, kPrecision>& state) {
  Softmax page;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float top = -INFINITY;
#pragma unroll
    for (uint32_t i = 0; i < 16; ++i) top = fmaxf(top, p[r][i]);
    top = fmaxf(top, ShuffleXor(top, 1));
    top = fmaxf(top, ShuffleXor(top, 2));
    const float m = fmaxf(state.m[r], top);
    page.base[r] = m == -INFINITY ? 0.0f : m;
    page.before[r] = Power<kPrecision>(state.m[r] - page.base[r]);
    page.sum[r] = 0.0f;
    state.m[r] = m;
#pragma unroll
    for (uint32_t tile = 0; tile < kTiles; ++tile) {
      state.o[tile][2 * r] *= page.before[r];
      state.o[tile][2 * r + 1] *= page.before[r];
    }
  }
  return page;
}

// l stays a sum over the lane's own positions.
template <uint32_t kTiles, AttentionPrecision kPrecision>
__device__ __forceinline__ void EndPage(const Softmax& page, State<kTiles, kPrecision>& state) {
#pragma unroll
  for (int r = 0; r < 2; ++r) state.l[r] = fmaf(state.l[r], page.before[r], page.sum[r]);
}

// The weights of 16 positions as fragments: pairs at 8i + 2t.
template <AttentionPrecision kPrecision>
struct Weights {
  uint32_t part[kParts<kPrecision>][2][2];  // [hi, lo][query g, g + 8]
};

// Of positions 16 * step and on of the page.
template <AttentionPrecision kPrecision>
__device__ __forceinline__ Weights<kPrecision> Weigh(const float (&p)[2][16], uint32_t step,
                                                     Softmax& page) {
  Weights<kPrecision> weights;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      const float even = Power<kPrecision>(p[r][4 * step + 2 * i] - page.base[r]) * kWeightScale;
      const float odd = Power<kPrecision>(p[r][4 * step + 2 * i + 1] - page.base[r]) * kWeightScale;
      page.sum[r] += even;
      page.sum[r] += odd;
      const uint32_t high = PackHalves(even, odd);
      weights.part[0][r][i] = high;
      if constexpr (kPrecision == AttentionPrecision::kSplit) {
        weights.part[1][r][i] = PackHalves(even - HalfToFloat(static_cast<uint16_t>(high)),
                                           odd - HalfToFloat(static_cast<uint16_t>(high >> 16)));
      }
    }
  }
  return weights;
}

// Adds what 16 positions give to eight columns; v0 and v1: of eight positions each, as
// LoadTransposed leaves them.
template <AttentionPrecision kPrecision>
__device__ __forceinline__ void AddValues(const Weights<kPrecision>& weights, uint32_t v0,
                                          uint32_t v1, float (&o)[4]) {
  const uint32_t b[2] = {v0, v1};
#pragma unroll
  for (uint32_t part = 0; part < kParts<kPrecision>; ++part) {
    const auto& w = weights.part[part];
    const uint32_t a[4] = {w[0][0], w[1][0], w[0][1], w[1][1]};
    MmaF16(o, a, b);
  }
}

// Where the element d of a query of 16 lies among the fragments of its part (hi or lo), 16 bits
// each: a lane's four registers together, for two tensor-core steps of each 32 dimensions. Step i
// multiplies 8t + 4i .. 8t + 4i + 3, t = 0..3, which are half of a lane's 16 bytes of a key.
__device__ __forceinline__ uint32_t FragmentAt(uint32_t query, uint32_t d) {
  const uint32_t step = d / 32 * 2 + d / 4 % 2, lane = query % 8 * 4 + d / 8 % 4;
  return (step * 32 + lane) * 8 + d / 2 % 2 * 4 + query / 8 * 2 + d % 2;
}

// The fragments of 32 dimensions: [step][hi, lo].
template <AttentionPrecision kPrecision>
struct QueryFragments {
  uint4 of[2][kParts<kPrecision>];
};

// Of those from 32 * `block` on; fragments [hi, lo] of kDim dimensions.
template <uint32_t kDim, AttentionPrecision kPrecision>
__device__ __forceinline__ QueryFragments<kPrecision> FragmentsOf(const uint4* fragments,
                                                                  uint32_t block) {
  QueryFragments<kPrecision> q;
#pragma unroll
  for (uint32_t step = 0; step < 2; ++step) {
#pragma unroll
    for (uint32_t part = 0; part < kParts<kPrecision>; ++part) {
      q.of[step][part] = fragments[part * (2 * kDim) + (2 * block + step) * 32 + threadIdx.x % 32];
    }
  }
  return q;
}

// Adds to the scores of eight positions; k: the lane's 16 bytes of a key.
template <AttentionPrecision kPrecision>
__device__ __forceinline__ void AddScores(const QueryFragments<kPrecision>& q, const uint4& k,
                                          float (&acc)[4]) {
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    const uint32_t b[2] = {At(k, 2 * step), At(k, 2 * step + 1)};
#pragma unroll
    for (uint32_t part = 0; part < kParts<kPrecision>; ++part) {
      const uint4& of = q.of[step][part];
      const uint32_t a[4] = {of.x, of.y, of.z, of.w};
      MmaF16(acc, a, b);
    }
  }
}

}  // namespace tandem::cuda
