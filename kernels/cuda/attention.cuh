// What the attention kernels share: which positions a query sees, how a query is scaled and split,
// how scores become weights, and how the states of folds are joined. A query goes through the same
// operations in the same order in each of them, so they give the same bits.
//
// Fragments are those of mma.sync.m16n8k16: lane 4g + t holds queries g and g + 8 of 16, and of
// each eight positions or columns 2t and 2t + 1.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/weights.cuh"

namespace tandem::cuda {

constexpr uint32_t kFoldPages = kAttentionFold / kPageTokens;
constexpr float kWeightScale = 1024.0f;  // keeps the low parts of small weights normal in f16

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

// One query vector by eight lanes, of which this is lane `part`: padded with zeros, times a power
// of two that brings the largest element to [2^10, 2^11), and split in two f16. put(which, d, bits)
// takes them. Zeros where not real. Returns what scores are multiplied by. Called by whole warps.
template <uint32_t kDim, typename Put>
__device__ __forceinline__ float SplitQuery(const float* from, bool real, uint32_t hd,
                                            uint32_t part, const Put& put) {
  float top = 0.0f;
  if (real) {
    for (uint32_t d = part; d < hd; d += 8) top = fmaxf(top, fabsf(from[d]));
  }
#pragma unroll
  for (int mask = 1; mask < 8; mask *= 2) top = fmaxf(top, ShuffleXor(top, mask));
  int exponent = static_cast<int>((__float_as_uint(top) >> 23) & 0xffu) - 127;
  exponent = exponent < -100 ? 10 : exponent > 127 ? 10 : exponent;  // zeros; infinities
  const float scale = __uint_as_float(static_cast<uint32_t>(127 + 10 - exponent) << 23);
  for (uint32_t d = part; d < kDim; d += 8) {
    const float value = real && d < hd ? from[d] * scale : 0.0f;
    const uint16_t bits = FloatToHalf(value);
    put(0, d, bits);
    put(1, d, FloatToHalf(value - HalfToFloat(bits)));
  }
  const float back = __uint_as_float(static_cast<uint32_t>(127 - 10 + exponent) << 23);
  return back / sqrtf(static_cast<float>(hd));
}

// State before and after, with the later fold joined to it.
struct JoinScales {
  float m, before, after;
};
__device__ __forceinline__ JoinScales ScalesOf(float m, float later) {
  const float top = fmaxf(m, later);
  return {top, expf(m - top), expf(later - top)};
}
__device__ __forceinline__ float Joined(float value, float later, const JoinScales& s) {
  return fmaf(value, s.before, later * s.after);
}

// A lane's part of the state of one fold, or of all folds so far: queries g and g + 8, and of
// kTiles times eight columns 2t and 2t + 1 of each eight.
template <uint32_t kTiles>
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
      const JoinScales s = ScalesOf(m[r], later.m[r]);
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
template <uint32_t kTiles>
__device__ __forceinline__ Softmax BeginPage(const float (&p)[2][16], State<kTiles>& state) {
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
    page.before[r] = expf(state.m[r] - page.base[r]);
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
template <uint32_t kTiles>
__device__ __forceinline__ void EndPage(const Softmax& page, State<kTiles>& state) {
#pragma unroll
  for (int r = 0; r < 2; ++r) state.l[r] = fmaf(state.l[r], page.before[r], page.sum[r]);
}

// The weights of 16 positions, each split in two f16, as fragments: pairs at 8i + 2t.
struct Weights {
  uint32_t high[2][2], low[2][2];  // [query g, g + 8]
};

// Of positions 16 * step and on of the page.
__device__ __forceinline__ Weights Weigh(const float (&p)[2][16], uint32_t step, Softmax& page) {
  Weights weights;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      const float even = expf(p[r][4 * step + 2 * i] - page.base[r]) * kWeightScale;
      const float odd = expf(p[r][4 * step + 2 * i + 1] - page.base[r]) * kWeightScale;
      page.sum[r] += even;
      page.sum[r] += odd;
      const uint16_t h0 = FloatToHalf(even), h1 = FloatToHalf(odd);
      weights.high[r][i] = h0 | uint32_t{h1} << 16;
      weights.low[r][i] =
          FloatToHalf(even - HalfToFloat(h0)) | uint32_t{FloatToHalf(odd - HalfToFloat(h1))} << 16;
    }
  }
  return weights;
}

// Adds what 16 positions give to eight columns; v0 and v1: of eight positions each, as
// LoadTransposed leaves them.
__device__ __forceinline__ void AddValues(const Weights& weights, uint32_t v0, uint32_t v1,
                                          float (&o)[4]) {
  const uint32_t b[2] = {v0, v1};
  const uint32_t a[4] = {weights.high[0][0], weights.high[1][0], weights.high[0][1],
                         weights.high[1][1]};
  MmaF16(o, a, b);
  const uint32_t rest[4] = {weights.low[0][0], weights.low[1][0], weights.low[0][1],
                            weights.low[1][1]};
  MmaF16(o, rest, b);
}

// Where the element d of a query of 16 lies among the fragments of its part (hi or lo), 16 bits
// each: a lane's four registers together, for two tensor-core steps of each 32 dimensions. Step i
// multiplies 8t + 4i .. 8t + 4i + 3, t = 0..3, which are half of a lane's 16 bytes of a key.
__device__ __forceinline__ uint32_t FragmentAt(uint32_t query, uint32_t d) {
  const uint32_t step = d / 32 * 2 + d / 4 % 2, lane = query % 8 * 4 + d / 8 % 4;
  return (step * 32 + lane) * 8 + d / 2 % 2 * 4 + query / 8 * 2 + d % 2;
}

// Scores of eight positions from 32 dimensions, of which `k` are the lane's 16 bytes of a key.
struct QueryFragments {
  uint4 of[2][2];  // [step][hi, lo]
};
__device__ __forceinline__ void AddScores(const QueryFragments& q, const uint4& k,
                                          float (&acc)[4]) {
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    const uint32_t b[2] = {At(k, 2 * step), At(k, 2 * step + 1)};
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const uint4& q_part = q.of[step][part];
      const uint32_t a[4] = {q_part.x, q_part.y, q_part.z, q_part.w};
      MmaF16(acc, a, b);
    }
  }
}

// Of the 32 dimensions from 32 * `block` on; fragments [hi, lo] of kDim dimensions.
template <uint32_t kDim>
__device__ __forceinline__ QueryFragments FragmentsOf(const uint4* fragments, uint32_t block) {
  QueryFragments q;
#pragma unroll
  for (uint32_t step = 0; step < 2; ++step) {
#pragma unroll
    for (uint32_t part = 0; part < 2; ++part) {
      q.of[step][part] = fragments[part * (2 * kDim) + (2 * block + step) * 32 + threadIdx.x % 32];
    }
  }
  return q;
}

}  // namespace tandem::cuda
