// y = x W^T of quantised weights and int8 rows, for many rows: bound by the scaling of block sums.
//
// Tiles and warps as in tiles.cuh. The rows' groups of 128 columns pass through shared memory, two
// stages, copied asynchronously; weights go from global memory into registers, as fragments. A
// block of 32 columns is one tensor-core step (Q6_K: two); its sums are scaled into the chain at
// once, so outputs have the bits of matmul_int8.cu. Per block of 32, 16 outputs and 8 tokens: 4,096
// multiply-adds, and 12 to 20 f32 operations a lane. Bytes: the packed matrix once per 128 rows,
// rows once per 128 outputs. Minimum hardware: sm_80.
#include "kernels/cuda/int8_block.cuh"
#include "kernels/cuda/tiles.cuh"

namespace tandem::cuda {
namespace {

constexpr uint32_t kParts = sizeof(PreparedGroup) / 16;
constexpr uint32_t kTokenBytes = sizeof(PreparedGroup) + 32;  // scales of four tokens: four banks
constexpr uint32_t kStageBytes = kTileTokens * kTokenBytes;
constexpr uint32_t kHalfTiles = kWarpTiles / 2;

__device__ __forceinline__ void StageTokens(const MatMulCall& call, uint32_t groups, uint32_t group,
                                            uint32_t first, std::byte* to) {
  for (uint32_t i = threadIdx.x; i < kTileTokens * kParts; i += kTileThreads) {
    const uint32_t token = i / kParts, part = i % kParts;
    // Tokens past the last one repeat it; their outputs are not stored.
    const uint64_t from = first + token < call.n ? first + token : call.n - 1;
    CopyAsync16(to + token * kTokenBytes + 16 * part,
                call.narrow + (from * groups + group) * sizeof(PreparedGroup) + 16 * part, true);
  }
}

template <bool kOffset, bool kMinimum>
__device__ __forceinline__ TokenBlock ReadBlock(const std::byte* tile, const uint4& low,
                                                const uint4& high, int j, uint32_t t) {
  TokenBlock block{{At(low, j), At(high, j)}, {}, {}, {}};
#pragma unroll
  for (uint32_t i = 0; i < 2; ++i) {
    const auto* group = reinterpret_cast<const PreparedGroup*>(tile + (2 * t + i) * kTokenBytes);
    block.scale[i] = group->scale[j];
    if constexpr (kOffset) block.sum[i] = group->sum[j];
    if constexpr (kMinimum) block.scaled_sum[i] = group->scaled_sum[j];
  }
  return block;
}

template <DType kType>
__global__ void __launch_bounds__(kTileThreads, 1)
    TileInt8(const __grid_constant__ MatMulCall call) {
  constexpr QuantFormat kFormat = FormatOf(kType);
  const TilePlace place(call);
  const MatMulPart& part = *place.part;
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t blocks = call.cols / kBlockCols;
  const uint32_t groups = (blocks + kGroupBlocks - 1) / kGroupBlocks;
  const uint32_t first_block = part.col_begin / kBlockCols;
  std::byte* shared = DynamicShared();

  TileSums sums;
  ChainWalk walk{groups};
  uint32_t stage = 0;
  StageTokens(call, groups, walk.group, place.block_token, shared);
  CommitCopies();
  while (!walk.Done()) {
    const ChainWalk next = walk.Next();
    QuantGroup<kType> weights[kWarpPanels];
#pragma unroll
    for (uint32_t p = 0; p < kWarpPanels; ++p) {
      weights[p].Load(part.w + place.panels[p] * part.panel_bytes,
                      first_block + walk.group * kGroupBlocks, first_block + blocks,
                      part.packed_cols / kBlockCols, lane);
    }
    if (!next.Done()) {
      StageTokens(call, groups, next.group, place.block_token, shared + (1 - stage) * kStageBytes);
    }
    CommitCopies();
    WaitCopies<1>();
    __syncthreads();  // this group's rows are there
    const std::byte* rows = shared + stage * kStageBytes + place.warp_token * kTokenBytes;
    const bool odd = (first_block / kGroupBlocks + walk.group) % 2 != 0;
    const int nb = static_cast<int>(BlocksInGroup(blocks, walk.group));
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
      uint4 low[kHalfTiles], high[kHalfTiles];
#pragma unroll
      for (uint32_t i = 0; i < kHalfTiles; ++i) {
        const uint32_t tile = half * kHalfTiles + i;
        const auto* own =
            reinterpret_cast<const PreparedGroup*>(rows + (8 * tile + g) * kTokenBytes);
        low[i] = *reinterpret_cast<const uint4*>(own->low[t]);
        high[i] = *reinterpret_cast<const uint4*>(own->high[t]);
      }
#pragma unroll
      for (int j = 0; j < static_cast<int>(kGroupBlocks); ++j) {
        if (j >= nb) break;
        WeightBlock<kType> block[kWarpPanels];
#pragma unroll
        for (uint32_t p = 0; p < kWarpPanels; ++p) block[p].Unpack(weights[p], j, odd, t);
#pragma unroll
        for (uint32_t i = 0; i < kHalfTiles; ++i) {
          const uint32_t tile = half * kHalfTiles + i;
          const TokenBlock tokens = ReadBlock < kFormat.offset != 0,
                           kFormat.minimum > (rows + 8 * tile * kTokenBytes, low[i], high[i], j, t);
#pragma unroll
          for (uint32_t p = 0; p < kWarpPanels; ++p) {
            AddBlock<kType>(block[p], tokens, sums.chain[p][tile]);
          }
        }
      }
    }
    __syncthreads();  // the stage is read
    if (next.Done() || next.chain != walk.chain) sums.EndChain();
    walk = next;
    stage = 1 - stage;
  }
  sums.Store(call, place);
}

template <DType kType>
void LaunchTiles(const MatMulCall& call, void* stream) {
  const MatMulCall tiled = InTiles(call);
  Launch("int8 product", TileInt8<kType>,
         dim3((call.n + kTileTokens - 1) / kTileTokens, tiled.panels), dim3(kTileThreads),
         2 * kStageBytes, stream, tiled);
}

}  // namespace

void LaunchPrefillInt8(DType type, const MatMulCall& call, void* stream) {
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
