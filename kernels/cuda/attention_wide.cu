// Attention (attention.cu) of the many queries of a prompt, to the same bits.
//
// A block takes up to 64 query vectors (128 in half precision) that read the same KV head, 16 a
// warp, and walks the pages of keys and values that they see. A page is copied to shared memory
// while the one before it is worked on, and serves all warps; one barrier a page. A warp does for
// its queries all that attention.cu does for 16, in the same order: the scores of a page, which
// stay in registers, their weights, all columns of the values; folds of 256 positions joined in
// order. It leaves out the pages that none of its queries sees, as a block of attention.cu does.
//
// The rows of a page lie in shared memory without gaps, their 16-byte chunks permuted by row
// (ChunkAt).
// Bytes: k and v of the pages once a tile. Minimum hardware: sm_80; up to 99,840 bytes of shared
// memory, of the 101,376 that the GPUs with the least have (sm_86, sm_89, sm_120).
#include "kernels/cuda/attention.cuh"

namespace tandem::cuda {
namespace {

// Shared memory, in order, in bytes; every part is a multiple of 16.
template <uint32_t kDim, AttentionPrecision kPrecision>
struct WideParts {
  static constexpr uint32_t kTile = WideQueries(kPrecision);
  static constexpr uint32_t kThreads = 2 * kTile;  // a warp for 16
  // Of a multiprocessor, by the registers.
  static constexpr uint32_t kBlocks = kThreads == 128 || kDim <= 64 ? 2 : 1;
  static constexpr uint32_t kChunks = kDim / 8;  // of 16 bytes a row
  static constexpr uint32_t kPageChunks = kPageTokens * kChunks;
  static constexpr uint32_t kQueries = 0;  // [warp][hi, lo], fragments
  static constexpr uint32_t kPages = kQueries + kParts<kPrecision> * kTile * kChunks * 16;
  static constexpr uint32_t kFactors = kPages + 4 * kPageChunks * 16;  // after two of keys, values
  static constexpr uint32_t kSights = kFactors + kTile * 4;
  static constexpr uint32_t kBytes = kSights + kTile * sizeof(Sight);
};

// Where a chunk of a row lies. Neither eight rows of one chunk (LoadTransposed) nor four chunks of
// two rows (the fragments of keys and queries) meet in a bank.
template <uint32_t kChunks>
__device__ __forceinline__ uint32_t ChunkAt(uint32_t row, uint32_t chunk) {
  static_assert(kChunks % 4 == 0);
  const uint32_t turn = kChunks % 8 == 0 ? row % 2 * 4 + row / 2 % 4 : row / 2 % 4;
  return row * kChunks + (chunk ^ turn);
}

// The warp's 16 query vectors into shared memory, and what their scores are multiplied by.
template <uint32_t kDim, AttentionPrecision kPrecision>
__device__ __forceinline__ void LoadQueries(const AttentionCall& call, const AttentionTile& tile,
                                            uint32_t kv_head, std::byte* shared) {
  using P = WideParts<kDim, kPrecision>;
  const uint32_t lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16;
  auto* queries =
      reinterpret_cast<uint16_t*>(shared + P::kQueries) + own * kParts<kPrecision> * kDim;
  auto* factors = reinterpret_cast<float*>(shared + P::kFactors);
#pragma unroll 1
  for (uint32_t query = lane / 8; query < 16; query += 4) {
    const auto put = [&](uint32_t part, uint32_t d, uint16_t bits) {
      queries[part * (16 * kDim) + FragmentAt(query, d)] = bits;
    };
    const float factor =
        LoadQuery<kDim, kPrecision>(call.q + QueryAt(call, tile, kv_head, own + query),
                                    own + query < tile.n, call.kv.head_dim, lane % 8, put);
    if (lane % 8 == 0) factors[own + query] = factor;
  }
}

// A page of keys and one of values on their way to shared memory; zeros past the head, and values
// that no query of the tile sees.
template <uint32_t kDim, AttentionPrecision kPrecision>
__device__ __forceinline__ void StagePage(const uint16_t* keys, const AttentionCall& call,
                                          uint32_t begin, const Sight& seen, uint4* to) {
  using P = WideParts<kDim, kPrecision>;
  const uint32_t hd = call.kv.head_dim;
  const uint16_t* values = keys + uint64_t{call.kv.kv_heads} * kPageTokens * hd;
#pragma unroll 1
  for (uint32_t i = threadIdx.x; i < P::kPageChunks; i += P::kThreads) {
    const uint32_t row = i / P::kChunks, chunk = i % P::kChunks;
    const uint32_t at = ChunkAt<P::kChunks>(row, chunk);
    const bool real = 8 * chunk < hd;
    const uint32_t from = real ? row * hd + 8 * chunk : 0;
    CopyAsync16(to + at, keys + from, real);
    CopyAsync16(to + P::kPageChunks + at, values + from, real && seen.Sees(begin + row));
  }
  CommitCopies();
}

// Scores of the warp's queries with a page; p as BeginPage takes it.
template <uint32_t kDim, AttentionPrecision kPrecision>
__device__ __forceinline__ void ScorePage(const uint4* queries, const uint4* keys,
                                          const float* factors, float (&p)[2][16]) {
  constexpr uint32_t kChunks = WideParts<kDim, kPrecision>::kChunks;
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  constexpr int kTiles = kPageTokens / 8;
  float acc[kTiles][4] = {};
#pragma unroll 1
  for (uint32_t chunk = 0; chunk < kChunks; chunk += 4) {
    const auto q = FragmentsOf<kDim, kPrecision>(queries, chunk / 4);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      AddScores(q, keys[ChunkAt<kChunks>(8 * tile + g, chunk + t)], acc[tile]);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float factor = factors[g + 8 * r];
#pragma unroll
    for (int i = 0; i < 16; ++i) p[r][i] = acc[i / 2][2 * r + i % 2] * factor;
  }
}

// Hides the positions of a page that a query does not see.
__device__ __forceinline__ void Mask(uint32_t begin, const Sight* sights, float (&p)[2][16]) {
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const Sight sight = sights[g + 8 * r];
#pragma unroll
    for (uint32_t i = 0; i < 16; ++i) {
      if (!sight.Sees(begin + i / 2 * 8 + 2 * t + i % 2)) p[r][i] = -INFINITY;
    }
  }
}

// Adds a page's positions to a fold's state. The steps are a loop, which moves the scores along
// instead of unrolling, for registers: unrolled, its loads come early and others are spilled.
template <uint32_t kDim, AttentionPrecision kPrecision>
__device__ __forceinline__ void AddPage(float (&p)[2][16], const uint4* values,
                                        State<kDim / 8, kPrecision>& state) {
  const uint32_t lane = threadIdx.x % 32;
  Softmax softmax = BeginPage(p, state);
#pragma unroll 1
  for (uint32_t step = 0; step < kPageTokens / 16; ++step) {
    const auto weights = Weigh<kPrecision>(p, 0, softmax);
#pragma unroll
    for (uint32_t tile = 0; tile < kDim / 8; tile += 2) {
      uint32_t v[4];  // 16 positions by eight columns, and by the next eight
      LoadTransposed(v, values + ChunkAt<WideParts<kDim, kPrecision>::kChunks>(
                                     16 * step + lane % 16, tile + lane / 16));
      AddValues(weights, v[0], v[1], state.o[tile]);
      AddValues(weights, v[2], v[3], state.o[tile + 1]);
    }
#pragma unroll
    for (int i = 0; i < 12; ++i) {
      p[0][i] = p[0][i + 4];
      p[1][i] = p[1][i + 4];
    }
  }
  EndPage(softmax, state);
}

// A lane's queries, g and g + 8 of the warp's.
template <uint32_t kDim, AttentionPrecision kPrecision>
__device__ __forceinline__ void StoreOutputs(const AttentionCall& call, uint32_t kv_head,
                                             const State<kDim / 8, kPrecision>& state) {
  const AttentionTile tile = call.tiles[blockIdx.x / call.kv.kv_heads];
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const uint32_t query = threadIdx.x / 32 * 16 + g + 8 * r;
    if (query >= tile.n) continue;
    float* to = call.out + QueryAt(call, tile, kv_head, query) + 2 * t;
    const float inverse = 1.0f / state.l[r];
#pragma unroll
    for (uint32_t i = 0; i < kDim / 8; ++i) {
      if (8 * i >= call.kv.head_dim) break;  // a multiple of eight
      *reinterpret_cast<float2*>(to + 8 * i) =
          float2{state.o[i][2 * r] * inverse, state.o[i][2 * r + 1] * inverse};
    }
  }
}

// What each thread would else keep in registers from page to page lies in shared memory: what
// queries see, and their factors.
template <uint32_t kDim, AttentionPrecision kPrecision>
__global__ void __launch_bounds__(2 * WideQueries(kPrecision), WideParts<kDim, kPrecision>::kBlocks)
    AttendWide(const AttentionCall call) {
  using P = WideParts<kDim, kPrecision>;
  std::byte* shared = DynamicShared();
  auto* pages = reinterpret_cast<uint4*>(shared + P::kPages);
  auto* sights = reinterpret_cast<Sight*>(shared + P::kSights);
  WaitForPrevious();
  const uint32_t kv_head = blockIdx.x % call.kv.kv_heads, own = threadIdx.x / 32 * 16;
  const AttentionTile tile = call.tiles[blockIdx.x / call.kv.kv_heads];
  if (tile.n == 0) return;
  if (threadIdx.x < P::kTile) {
    const uint32_t group = call.q_heads / call.kv.kv_heads;
    sights[threadIdx.x] = SightOf(tile, group, call.window, threadIdx.x);
  }
  __syncthreads();  // sights are there
  const auto stage = [&](uint32_t page) {
    const uint16_t* keys = KeysOf(call, tile, kv_head, page);
    StagePage<kDim, kPrecision>(keys, call, page * kPageTokens,
                                {sights[0].first, sights[P::kTile - 1].count},
                                pages + page % 2 * (2 * P::kPageChunks));
  };
  const uint32_t first = sights[0].first / kPageTokens;
  const uint32_t end = (sights[P::kTile - 1].count + kPageTokens - 1) / kPageTokens;
  stage(first);
  LoadQueries<kDim, kPrecision>(call, tile, kv_head, shared);
  const auto* queries =
      reinterpret_cast<const uint4*>(shared + P::kQueries) + own * (kParts<kPrecision> * kDim / 8);
  const auto* factors = reinterpret_cast<const float*>(shared + P::kFactors) + own;
  State<kDim / 8, kPrecision> state, total;
  state.Clear();
  total.Clear();
#pragma unroll 1
  for (uint32_t page = first; page < end; ++page) {
    WaitCopies<0>();
    __syncthreads();  // the page is there, and queries; the page before it is read by all
    if (page + 1 < end) stage(page + 1);
    const uint32_t begin = page * kPageTokens;
    const Sight earliest = sights[own], latest = sights[own + 15];
    if (own < tile.n && begin < latest.count && begin + kPageTokens > earliest.first) {
      const uint4* keys = pages + page % 2 * (2 * P::kPageChunks);
      float p[2][16];
      ScorePage<kDim, kPrecision>(queries, keys, factors, p);
      if (begin < latest.first || begin + kPageTokens > earliest.count) {
        Mask(begin, sights + own, p);
      }
      AddPage<kDim, kPrecision>(p, keys + P::kPageChunks, state);
    }
    if (page % kFoldPages == kFoldPages - 1 || page + 1 == end) {
      state.SumLanes();
      total.Join(state);
      state.Clear();
    }
  }
  StoreOutputs<kDim, kPrecision>(call, kv_head, total);
}

template <uint32_t kDim, AttentionPrecision kPrecision>
void LaunchFor(const AttentionCall& call, const GpuStream& stream) {
  using P = WideParts<kDim, kPrecision>;
  static_assert(P::kBytes <= 101376);
  LaunchEarly("attention of a prompt", AttendWide<kDim, kPrecision>,
              dim3(call.n_tiles * call.kv.kv_heads), dim3(P::kThreads), P::kBytes, stream, call);
}

template <AttentionPrecision kPrecision>
void LaunchOf(const AttentionCall& call, const GpuStream& stream) {
  const uint32_t hd = call.kv.head_dim;
  if (hd <= 32) return LaunchFor<32, kPrecision>(call, stream);
  if (hd <= 64) return LaunchFor<64, kPrecision>(call, stream);
  if (hd <= 96) return LaunchFor<96, kPrecision>(call, stream);
  LaunchFor<128, kPrecision>(call, stream);
}

}  // namespace

bool CanBeWide(uint32_t head_dim) { return head_dim % 8 == 0 && head_dim <= 128; }

void LaunchWideAttention(const AttentionCall& call, const GpuStream& stream) {
  if (call.precision == AttentionPrecision::kHalf) {
    return LaunchOf<AttentionPrecision::kHalf>(call, stream);
  }
  LaunchOf<AttentionPrecision::kSplit>(call, stream);
}

}  // namespace tandem::cuda
