// y = x W^T of quantised weights and int8 rows, for many rows: bound by the scaling of block sums.
//
// Tiles and warps as in tiles.cuh, 64 tokens a block. Groups of 128 columns of rows and of weights
// pass through shared memory, two stages, copied asynchronously. A block of 32 columns is one
// tensor-core step (Q6_K: two); its sums are scaled into the chain at once, so outputs have the
// bits of matmul_int8.cu. The sums of finished chains wait in shared memory: registers hold one
// chain's alone. Per block of 32, 16 outputs and 8 tokens: 4,096 multiply-adds, and 12 to 20 f32
// operations a lane. Bytes: the packed matrix once per 64 rows, rows once per 128 outputs.
// Minimum hardware: sm_80.
#include "kernels/cuda/int8_block.cuh"
#include "kernels/cuda/tiles.cuh"

namespace tandem::cuda {
namespace {

constexpr uint32_t kTiles = 4;
using Place = TilePlace<kTiles>;
constexpr uint32_t kCodeBytes = 128;  // of a token's group: low[4], high[4], 16 bytes each
constexpr uint32_t kParts = kCodeBytes / 16;

// A stage of shared memory: codes, what scales them, and the weights of eight panels.
template <DType kType>
struct Stage {
  static constexpr QuantFormat kFormat = FormatOf(kType);
  static constexpr bool kSums = kFormat.minimum || (kFormat.offset != 0 && kType != DType::kQ6_K);
  // Floats that go with two tokens and a block: two scales; and two sums, or two scaled sums.
  static constexpr uint32_t kPairFloats = kSums ? 4 : 2;
  static constexpr uint32_t kHeaderBytes = kPanelRows * kFormat.header;
  static constexpr uint32_t kPanelBytes = kHeaderBytes + kFormat.GroupBytes(kGroupBlocks);

  static constexpr uint32_t kScales = Place::kTokens * kCodeBytes;
  static constexpr uint32_t kWeights =
      kScales + Place::kTokens / 2 * kGroupBlocks * kPairFloats * 4;
  static constexpr uint32_t kBytes = kWeights + kTilePanels * kPanelBytes;

  // Where 16 bytes `part` of a token's codes are: those of odd tokens change places in fours,
  // which frees reads of conflicts.
  static __device__ __forceinline__ uint32_t CodesAt(uint32_t token, uint32_t part) {
    return token * kCodeBytes + 16 * (part ^ (token % 2 * 4));
  }
  static __device__ __forceinline__ uint32_t PairAt(uint32_t pair, uint32_t block) {
    return kScales + (block * (Place::kTokens / 2) + pair) * kPairFloats * 4;
  }
  static __device__ __forceinline__ uint32_t PanelAt(uint32_t i) {
    return kWeights + i * kPanelBytes;
  }
};

// Where a slice's columns are in the packed matrix, in blocks of 32.
struct BlockRange {
  uint32_t begin, end, packed;
};

// What a thread brings of each group: 16 bytes of the codes of two tokens, what scales one token's
// block, and its warp's share of one panel.
template <DType kType>
struct Bringer {
  using S = Stage<kType>;
  static_assert(Place::kTokens * kParts == 2 * kTileThreads);
  static_assert(Place::kTokens * kGroupBlocks == kTileThreads);
  static_assert(kTilePanels * 32 == kTileThreads);

  const PreparedGroup* codes[2];
  const PreparedGroup* scales;
  const std::byte* panel;

  __device__ __forceinline__ Bringer(const MatMulCall& call, const Place& place, uint32_t groups) {
    const auto* rows = reinterpret_cast<const PreparedGroup*>(call.narrow);
    const uint32_t token = threadIdx.x / kParts;
    codes[0] = rows + place.Token(call, token) * groups;
    codes[1] = rows + place.Token(call, Place::kTokens / 2 + token) * groups;
    scales = rows + place.Token(call, threadIdx.x / kGroupBlocks) * groups;
    panel = place.part->w + place.Panel(threadIdx.x / 32) * place.part->panel_bytes;
  }

  __device__ __forceinline__ void Bring(const BlockRange& range, uint32_t group,
                                        std::byte* stage) const {
    const uint32_t part = threadIdx.x % kParts;
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      const uint32_t token = i * (Place::kTokens / 2) + threadIdx.x / kParts;
      CopyAsync16(stage + S::CodesAt(token, part),
                  reinterpret_cast<const std::byte*>(codes[i] + group) + 16 * part, true);
    }
    const uint32_t token = threadIdx.x / kGroupBlocks, block = threadIdx.x % kGroupBlocks;
    const PreparedGroup& from = scales[group];
    std::byte* to = stage + S::PairAt(token / 2, block) + token % 2 * 4;
    CopyAsync4(to, &from.scale[block]);
    if constexpr (S::kFormat.minimum) {
      CopyAsync4(to + 8, &from.scaled_sum[block]);
    } else if constexpr (S::kSums) {
      CopyAsync4(to + 8, &from.sum[block]);
    }
    BringWeights(range.begin + group * kGroupBlocks, range.end,
                 stage + S::PanelAt(threadIdx.x / 32));
  }

  // Whole groups alone: others are read from where they lie.
  __device__ __forceinline__ void BringWeights(uint32_t block, uint32_t end, std::byte* to) const {
    if (!IsWhole(block, end)) return;
    const uint32_t packed_group = block / kGroupBlocks, lane = threadIdx.x % 32;
    const std::byte* from = panel + GroupAt(FormatOf(kType), packed_group);
#pragma unroll
    for (uint32_t at = 16 * lane; at < S::kPanelBytes - S::kHeaderBytes; at += 512) {
      CopyAsync16(to + S::kHeaderBytes + at, from + at, true);
    }
    if constexpr (S::kHeaderBytes != 0) {
      if (16 * lane < S::kHeaderBytes) {
        const std::byte* header = panel + HeaderAt(FormatOf(kType), packed_group);
        CopyAsync16(to + 16 * lane, header + 16 * lane, true);
      }
    }
  }
};

template <DType kType>
__device__ __forceinline__ void ReadWeights(const Place& place, const BlockRange& range,
                                            uint32_t group, const std::byte* stage, uint32_t p,
                                            QuantGroup<kType, false>& weights) {
  using S = Stage<kType>;
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t block = range.begin + group * kGroupBlocks;
  const uint32_t panel = place.WarpPanel(p);
  if (IsWhole(block, range.end)) {
    const std::byte* base = stage + S::PanelAt(panel);
    weights.LoadWhole(base + S::kHeaderBytes, lane / 4, lane % 4);
    if constexpr (S::kHeaderBytes != 0) weights.LoadHeader(base, lane / 4);
  } else {
    weights.Load(place.part->w + place.Panel(panel) * place.part->panel_bytes, block, range.end,
                 range.packed, lane);
  }
}

template <DType kType>
__device__ __forceinline__ TokenBlock ReadTokens(const std::byte* stage, uint32_t first,
                                                 const uint4& low, const uint4& high, int j) {
  using S = Stage<kType>;
  const std::byte* at = stage + S::PairAt(first / 2 + threadIdx.x % 4, static_cast<uint32_t>(j));
  TokenBlock block{{At(low, j), At(high, j)}, {}, {}, {}};
  if constexpr (S::kSums) {
    const float4 pair = ReadAs<float4>(at);
    block.scale[0] = pair.x;
    block.scale[1] = pair.y;
    block.scaled_sum[0] = pair.z;
    block.scaled_sum[1] = pair.w;
    SetStart<kType>(static_cast<int32_t>(__float_as_uint(pair.z)),
                    static_cast<int32_t>(__float_as_uint(pair.w)), block);
  } else {
    const float2 pair = ReadAs<float2>(at);
    block.scale[0] = pair.x;
    block.scale[1] = pair.y;
    SetStart<kType>(0, 0, block);
  }
  return block;
}

// One group of columns into a warp's sums.
template <DType kType>
__device__ __forceinline__ void AddGroup(const Place& place, const BlockRange& range,
                                         uint32_t group, const std::byte* stage,
                                         float (&sums)[kWarpPanels][kTiles][4]) {
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  QuantGroup<kType, false> weights[kWarpPanels];
#pragma unroll
  for (uint32_t p = 0; p < kWarpPanels; ++p) {
    ReadWeights<kType>(place, range, group, stage, p, weights[p]);
  }
  uint4 low[kTiles], high[kTiles];
#pragma unroll
  for (uint32_t tile = 0; tile < kTiles; ++tile) {
    const uint32_t token = place.warp_token + 8 * tile + g;
    low[tile] = ReadAs<uint4>(stage + Stage<kType>::CodesAt(token, t));
    high[tile] = ReadAs<uint4>(stage + Stage<kType>::CodesAt(token, 4 + t));
  }
  const bool odd = (range.begin / kGroupBlocks + group) % 2 != 0;
  const int nb = static_cast<int>(BlocksInGroup(range.end - range.begin, group));
#pragma unroll
  for (int j = 0; j < static_cast<int>(kGroupBlocks); ++j) {
    if (j >= nb) break;
    WeightBlock<kType> block[kWarpPanels];
#pragma unroll
    for (uint32_t p = 0; p < kWarpPanels; ++p) block[p].Unpack(weights[p], j, odd, t);
#pragma unroll
    for (uint32_t tile = 0; tile < kTiles; ++tile) {
      const TokenBlock tokens =
          ReadTokens<kType>(stage, place.warp_token + 8 * tile, low[tile], high[tile], j);
#pragma unroll
      for (uint32_t p = 0; p < kWarpPanels; ++p) {
        AddBlock<kType>(block[p], tokens, sums[p][tile]);
      }
    }
  }
}

// Adds a finished chain to the sums of those before it, which are a thread's own: totals (panel,
// tile, thread).
__device__ __forceinline__ void EndChain(bool first, float (&sums)[kWarpPanels][kTiles][4],
                                         float4* totals) {
#pragma unroll
  for (uint32_t p = 0; p < kWarpPanels; ++p) {
#pragma unroll
    for (uint32_t tile = 0; tile < kTiles; ++tile) {
      float4& total = totals[(p * kTiles + tile) * kTileThreads + threadIdx.x];
      float(&chain)[4] = sums[p][tile];
      const float4 before = first ? float4{} : total;
      total = float4{before.x + chain[0], before.y + chain[1], before.z + chain[2],
                     before.w + chain[3]};
#pragma unroll
      for (int i = 0; i < 4; ++i) chain[i] = 0.0f;
    }
  }
}

constexpr uint32_t kTotalBytes = kWarpPanels * kTiles * kTileThreads * 16;

template <DType kType>
__global__ void __launch_bounds__(kTileThreads, 1)
    TileInt8(const __grid_constant__ MatMulCall call) {
  const Place place(call);
  WaitForPrevious();
  const uint32_t first_block = place.part->col_begin / kBlockCols;
  const BlockRange range{first_block, first_block + call.cols / kBlockCols,
                         place.part->packed_cols / kBlockCols};
  const uint32_t groups = (call.cols / kBlockCols + kGroupBlocks - 1) / kGroupBlocks;
  auto* totals = reinterpret_cast<float4*>(DynamicShared());
  std::byte* stages = DynamicShared() + kTotalBytes;

  float sums[kWarpPanels][kTiles][4] = {};
  ChainWalk walk{groups};
  const Bringer<kType> bringer(call, place, groups);
  bringer.Bring(range, walk.group, stages);
  CommitCopies();
  uint32_t slot = 0;
  while (!walk.Done()) {
    const ChainWalk next = walk.Next();
    WaitCopies<0>();
    __syncthreads();  // this group is there for all; the one before is read
    if (!next.Done()) {
      bringer.Bring(range, next.group, stages + (1 - slot) * Stage<kType>::kBytes);
    }
    CommitCopies();
    AddGroup<kType>(place, range, walk.group, stages + slot * Stage<kType>::kBytes, sums);
    if (walk.EndsChain()) EndChain(walk.chain == 0, sums, totals);
    walk = next;
    slot = 1 - slot;
  }
#pragma unroll
  for (uint32_t p = 0; p < kWarpPanels; ++p) {
#pragma unroll
    for (uint32_t tile = 0; tile < kTiles; ++tile) {
      const float4 total = totals[(p * kTiles + tile) * kTileThreads + threadIdx.x];
      place.Store(call, p, tile, {total.x, total.y, total.z, total.w});
    }
  }
}

template <DType kType>
void LaunchTiles(const MatMulCall& call, const GpuStream& stream) {
  const MatMulCall tiled = InTiles(call);
  LaunchEarly("int8 product", TileInt8<kType>,
              dim3((call.n + Place::kTokens - 1) / Place::kTokens, tiled.panels),
              dim3(kTileThreads), kTotalBytes + 2 * Stage<kType>::kBytes, stream, tiled);
}

}  // namespace

void LaunchPrefillInt8(DType type, const MatMulCall& call, const GpuStream& stream) {
  switch (type) {
    case DType::kQ8_0:
      return LaunchTiles<DType::kQ8_0>(call, stream);
    case DType::kQ4_0:
      return LaunchTiles<DType::kQ4_0>(call, stream);
    case DType::kQ4_1:
      return LaunchTiles<DType::kQ4_1>(call, stream);
    case DType::kQ5_0:
      return LaunchTiles<DType::kQ5_0>(call, stream);
    case DType::kQ5_1:
      return LaunchTiles<DType::kQ5_1>(call, stream);
    case DType::kQ4_K:
      return LaunchTiles<DType::kQ4_K>(call, stream);
    case DType::kQ5_K:
      return LaunchTiles<DType::kQ5_K>(call, stream);
    case DType::kQ6_K:
      return LaunchTiles<DType::kQ6_K>(call, stream);
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
  }
}

}  // namespace tandem::cuda
