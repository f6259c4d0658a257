// out = softmax(q k^T / sqrt(hd)) v over f16 pages, on tensor cores, as exact as f32 sums; or, in
// half precision, with queries and weights of one f16 each (attention.cuh).
//
// A block of four warps takes up to 16 query vectors that read the same KV head, and folds of 256
// positions one after the other:
//   1. scores: warp p takes page p of the fold. q is scaled by a power of two for each vector and
//      split in two f16 (22 bits); two products with k, which is f16 as it lies there. The scores
//      (16, 256) go to shared memory.
//   2. values: page by page, for the pages in order, all warps take the weights of the same 64
//      positions (online softmax, weights split in two f16) and each a quarter of the columns of v.
// A fold's state (m, l, o) is computed by itself; folds are joined in order, either here or, when a
// few queries have a long past, by JoinFolds over the states of folds that ran side by side. Same
// operations, same bits; and a query's state depends on its own row alone.
//
// Positions that no query of the tile sees are neither read as values nor counted.
// Bytes: k and v of the folds once a tile. Minimum hardware: sm_80.
#include "kernels/cuda/attention.cuh"

namespace tandem::cuda {
namespace {

constexpr uint32_t kThreads = 128;
constexpr uint32_t kScoreStride = kAttentionFold + 4;  // floats; rows start 4 banks apart
constexpr uint32_t kValueGap = 8;                      // halves; shifts rows against bank conflicts

// Shared memory, in order; every part is a multiple of 16 bytes.
template <uint32_t kDim, AttentionPrecision kPrecision>
struct Parts {
  static constexpr uint32_t kStride = kDim + kValueGap;
  static constexpr uint32_t kQueries = 0;  // [hi, lo], fragments
  static constexpr uint32_t kScores = kQueries + kParts<kPrecision> * kTileQueries * kDim * 2;
  static constexpr uint32_t kValues =
      kScores + kTileQueries * kScoreStride * 4;                                 // [2][64][kStride]
  static constexpr uint32_t kFactors = kValues + 2 * kPageTokens * kStride * 2;  // [16]
  static constexpr uint32_t kBytes = kFactors + kTileQueries * 4;
};

// Query vectors into shared memory, and what their scores are multiplied by.
template <uint32_t kDim, AttentionPrecision kPrecision>
__device__ void LoadQueries(const AttentionCall& call, const AttentionTile& tile, uint32_t kv_head,
                            std::byte* shared) {
  using P = Parts<kDim, kPrecision>;
  auto* queries = reinterpret_cast<uint16_t*>(shared + P::kQueries);
  const uint32_t query = threadIdx.x / 8, first = threadIdx.x % 8;
  const auto put = [&](uint32_t part, uint32_t d, uint16_t bits) {
    queries[part * (kTileQueries * kDim) + FragmentAt(query, d)] = bits;
  };
  const float factor = LoadQuery<kDim, kPrecision>(call.q + QueryAt(call, tile, kv_head, query),
                                                   query < tile.n, call.kv.head_dim, first, put);
  if (first == 0) reinterpret_cast<float*>(shared + P::kFactors)[query] = factor;
}

// Eight f16 of a key from dimension d on; zeros past the head.
__device__ __forceinline__ uint4 KeyPart(const uint16_t* key, uint32_t d, uint32_t hd) {
  if (hd % 8 == 0) {
    if (d < hd) return *reinterpret_cast<const uint4*>(key + d);
    return uint4{0, 0, 0, 0};
  }
  uint32_t words[4] = {};
#pragma unroll
  for (uint32_t i = 0; i < 8; ++i) {
    if (d + i < hd) words[i / 2] |= uint32_t{key[d + i]} << (16 * (i % 2));
  }
  return uint4{words[0], words[1], words[2], words[3]};
}

// Scores of one page by one warp.
template <uint32_t kDim, AttentionPrecision kPrecision>
__device__ void ScorePage(const uint16_t* keys, uint32_t hd, uint32_t page, std::byte* shared) {
  using P = Parts<kDim, kPrecision>;
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const auto* queries = reinterpret_cast<const uint4*>(shared + P::kQueries);
  constexpr int kTiles = kPageTokens / 8;
  float acc[kTiles][4] = {};
#pragma unroll 1
  for (uint32_t d = 0; d < kDim; d += 32) {
    const auto q = FragmentsOf<kDim, kPrecision>(queries, d / 32);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      AddScores(q, KeyPart(keys + (8 * tile + g) * uint64_t{hd}, d + 8 * t, hd), acc[tile]);
    }
  }
  auto* scores = reinterpret_cast<float*>(shared + P::kScores) + page * kPageTokens;
  const auto* factors = reinterpret_cast<const float*>(shared + P::kFactors);
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t row = g + i / 2 * 8;
      scores[row * kScoreStride + 8 * tile + 2 * t + i % 2] = acc[tile][i] * factors[row];
    }
  }
}

// Values of a page on their way to shared memory; zeros outside [first, count) and past the head.
template <uint32_t kDim>
__device__ void StageValues(const uint16_t* values, uint32_t hd, uint32_t begin, const Sight& seen,
                            uint16_t* to) {
  constexpr uint32_t kChunks = kDim / 8;
  for (uint32_t i = threadIdx.x; i < kPageTokens * kChunks; i += kThreads) {
    const uint32_t slot = i / kChunks, d = i % kChunks * 8;
    const bool inside = seen.Sees(begin + slot);
    const uint16_t* from = values + slot * uint64_t{hd};
    uint16_t* row = to + slot * (kDim + kValueGap) + d;
    if (hd % 8 == 0) {
      const bool real = inside && d < hd;
      CopyAsync16(row, real ? from + d : values, real);
    } else {
      *reinterpret_cast<uint4*>(row) = inside ? KeyPart(from, d, hd) : uint4{0, 0, 0, 0};
    }
  }
  CommitCopies();
}

// The warp's quarter of the columns.
template <uint32_t kDim, AttentionPrecision kPrecision>
using Quarter = State<kDim / 32, kPrecision>;

// Adds one page's positions to a fold's state.
template <uint32_t kDim, AttentionPrecision kPrecision>
__device__ void AddPage(const std::byte* shared, const uint16_t* values, uint32_t page,
                        uint32_t begin, const Sight (&sights)[2],
                        Quarter<kDim, kPrecision>& state) {
  using P = Parts<kDim, kPrecision>;
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, warp = threadIdx.x / 32;
  const auto* scores = reinterpret_cast<const float*>(shared + P::kScores) + page * kPageTokens;
  float p[2][16];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (uint32_t i = 0; i < 16; ++i) {
      const uint32_t slot = i / 2 * 8 + 2 * t + i % 2;
      const bool seen = sights[r].Sees(begin + slot);
      p[r][i] = seen ? scores[(g + 8 * r) * kScoreStride + slot] : -INFINITY;
    }
  }
  Softmax softmax = BeginPage(p, state);
#pragma unroll
  for (uint32_t half = 0; half < 2; ++half) {
    const auto first = Weigh<kPrecision>(p, 2 * half, softmax);
    const auto second = Weigh<kPrecision>(p, 2 * half + 1, softmax);
    const uint16_t* row = values + (32 * half + lane) * P::kStride + warp * (kDim / 4);
#pragma unroll
    for (uint32_t tile = 0; tile < kDim / 32; ++tile) {
      uint32_t v[4];  // positions 8i.. of this half by eight columns
      LoadTransposed(v, row + 8 * tile);
      AddValues(first, v[0], v[1], state.o[tile]);
      AddValues(second, v[2], v[3], state.o[tile]);
    }
  }
  EndPage(softmax, state);
}

// A lane's queries of a finished tile.
template <uint32_t kDim, AttentionPrecision kPrecision>
__device__ void StoreOutputs(const AttentionCall& call, const AttentionTile& tile, uint32_t kv_head,
                             const Quarter<kDim, kPrecision>& state) {
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, warp = threadIdx.x / 32;
  const uint32_t hd = call.kv.head_dim;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (g + 8 * r >= tile.n) continue;
    float* to = call.out + QueryAt(call, tile, kv_head, g + 8 * r);
    const float inverse = 1.0f / state.l[r];
#pragma unroll
    for (uint32_t i = 0; i < kDim / 32; ++i) {
      const uint32_t d = warp * (kDim / 4) + 8 * i + 2 * t;
      if (d < hd) to[d] = state.o[i][2 * r] * inverse;
      if (d + 1 < hd) to[d + 1] = state.o[i][2 * r + 1] * inverse;
    }
  }
}

template <uint32_t kDim, AttentionPrecision kPrecision>
__device__ void StorePartial(float* to, const Quarter<kDim, kPrecision>& state) {
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, warp = threadIdx.x / 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const uint32_t query = g + 8 * r;
    if (warp == 0 && t == 0) {
      to[query] = state.m[r];
      to[kTileQueries + query] = state.l[r];
    }
    float* o = to + 2 * kTileQueries + query * kDim + warp * (kDim / 4) + 2 * t;
#pragma unroll
    for (uint32_t i = 0; i < kDim / 32; ++i) {
      o[8 * i] = state.o[i][2 * r];
      o[8 * i + 1] = state.o[i][2 * r + 1];
    }
  }
}

template <uint32_t kDim, AttentionPrecision kPrecision>
__global__ void __launch_bounds__(kThreads) Attend(const AttentionCall call) {
  using P = Parts<kDim, kPrecision>;
  std::byte* shared = DynamicShared();
  auto* staged = reinterpret_cast<uint16_t*>(shared + P::kValues);
  WaitForPrevious();
  const AttentionTile tile = call.tiles[blockIdx.x];
  if (tile.n == 0) return;  // a table may be longer than a step needs
  const uint32_t kv_head = blockIdx.y, warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
  const uint32_t hd = call.kv.head_dim, group = call.q_heads / call.kv.kv_heads;
  const Sight sights[2] = {SightOf(tile, group, call.window, g),
                           SightOf(tile, group, call.window, g + 8)};
  const Sight seen = {SightOf(tile, group, call.window, 0).first,
                      SightOf(tile, group, call.window, tile.n - 1).count};
  const auto keys_of = [&](uint32_t index) { return KeysOf(call, tile, kv_head, index); };
  const uint64_t to_values = uint64_t{call.kv.kv_heads} * kPageTokens * hd;

  LoadQueries<kDim, kPrecision>(call, tile, kv_head, shared);
  Quarter<kDim, kPrecision> total;
  total.Clear();
  for (uint32_t fold = tile.fold_begin; fold < tile.fold_end; ++fold) {
    // Pages [first, end) of the fold hold what the tile sees.
    const uint32_t begin = fold * kAttentionFold;
    const uint32_t first = seen.first > begin ? (seen.first - begin) / kPageTokens : 0;
    const uint32_t last = (seen.count - begin + kPageTokens - 1) / kPageTokens;
    const uint32_t end = last < kFoldPages ? last : kFoldPages;
    __syncthreads();  // queries are there; scores and values of the fold before are read
    const uint32_t page0 = fold * kFoldPages;
    StageValues<kDim>(keys_of(page0 + first) + to_values, hd, begin + first * kPageTokens, seen,
                      staged);
    if (warp >= first && warp < end)
      ScorePage<kDim, kPrecision>(keys_of(page0 + warp), hd, warp, shared);
    Quarter<kDim, kPrecision> state;
    state.Clear();
    for (uint32_t page = first; page < end; ++page) {
      const uint32_t slot = (page - first) % 2;
      WaitCopies<0>();
      __syncthreads();  // scores and this page's values are there; the page before is read
      if (page + 1 < end) {
        StageValues<kDim>(keys_of(page0 + page + 1) + to_values, hd,
                          begin + (page + 1) * kPageTokens, seen,
                          staged + (1 - slot) * kPageTokens * P::kStride);
      }
      AddPage<kDim, kPrecision>(shared, staged + slot * kPageTokens * P::kStride, page,
                                begin + page * kPageTokens, sights, state);
    }
    state.SumLanes();
    if (tile.partial == kNoPartial) {
      total.Join(state);
    } else {
      const uint64_t index =
          (uint64_t{tile.partial} + fold - tile.fold_begin) * call.kv.kv_heads + kv_head;
      StorePartial<kDim, kPrecision>(call.partials + index * StateFloats(kDim), state);
    }
  }
  if (tile.partial == kNoPartial) StoreOutputs<kDim, kPrecision>(call, tile, kv_head, total);
}

// A thread takes one query and a column at a time.
template <uint32_t kDim, AttentionPrecision kPrecision>
__global__ void __launch_bounds__(kThreads) JoinFolds(const AttentionCall call) {
  WaitForPrevious();
  const AttentionTile tile = call.tiles[blockIdx.x];
  const uint32_t kv_head = blockIdx.y, hd = call.kv.head_dim;
  for (uint32_t i = threadIdx.x; i < tile.n * hd; i += kThreads) {
    const uint32_t query = i / hd, d = i % hd;
    float m = -INFINITY, l = 0.0f, o = 0.0f;
    for (uint32_t fold = 0; fold < tile.fold_end - tile.fold_begin; ++fold) {
      const float* state =
          call.partials +
          ((uint64_t{tile.partial} + fold) * call.kv.kv_heads + kv_head) * StateFloats(kDim);
      const float later_l = state[kTileQueries + query];
      if (later_l == 0.0f) continue;
      const float later_m = state[query];
      const float later_o = state[2 * kTileQueries + query * kDim + d];
      const bool first = l == 0.0f;
      const JoinScales s = ScalesOf<kPrecision>(m, later_m);
      l = first ? later_l : Joined(l, later_l, s);
      o = first ? later_o : Joined(o, later_o, s);
      m = first ? later_m : s.m;
    }
    call.out[QueryAt(call, tile, kv_head, query) + d] = o * (1.0f / l);
  }
}

template <uint32_t kDim, AttentionPrecision kPrecision>
void LaunchFor(const AttentionCall& call, bool join, const GpuStream& stream) {
  const dim3 grid(call.n_tiles, call.kv.kv_heads);
  if (join) {
    LaunchEarly("attention", JoinFolds<kDim, kPrecision>, grid, dim3(kThreads), 0, stream, call);
  } else {
    LaunchEarly("attention", Attend<kDim, kPrecision>, grid, dim3(kThreads),
                Parts<kDim, kPrecision>::kBytes, stream, call);
  }
}

template <AttentionPrecision kPrecision>
void LaunchEither(const AttentionCall& call, bool join, const GpuStream& stream) {
  switch (PaddedHeadDim(call.kv.head_dim)) {
    case 32:
      return LaunchFor<32, kPrecision>(call, join, stream);
    case 64:
      return LaunchFor<64, kPrecision>(call, join, stream);
    case 128:
      return LaunchFor<128, kPrecision>(call, join, stream);
    default:
      return LaunchFor<256, kPrecision>(call, join, stream);
  }
}

void LaunchEither(const AttentionCall& call, bool join, const GpuStream& stream) {
  if (call.precision == AttentionPrecision::kHalf) {
    return LaunchEither<AttentionPrecision::kHalf>(call, join, stream);
  }
  LaunchEither<AttentionPrecision::kSplit>(call, join, stream);
}

}  // namespace

uint32_t PaddedHeadDim(uint32_t head_dim) {
  for (uint32_t padded = 32; padded <= 256; padded *= 2) {
    if (head_dim <= padded) return padded;
  }
  return 0;
}

void LaunchAttention(const AttentionCall& call, const GpuStream& stream) {
  LaunchEither(call, false, stream);
}
void LaunchJoinFolds(const AttentionCall& call, const GpuStream& stream) {
  LaunchEither(call, true, stream);
}

}  // namespace tandem::cuda
