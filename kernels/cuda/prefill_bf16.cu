// y = x W^T of BF16 weights and BF16 rows, for many rows: bound by the tensor cores (mma.sync).
//
// Tiles and warps as in tiles.cuh, steps and their order of columns as in matmul_bf16.cu, so
// outputs have its bits. The rows' groups of 64 columns pass through shared memory, two stages,
// copied asynchronously; 16 bytes of odd tokens change places in fours, which frees reads of
// conflicts. Weights go from global memory into registers, as fragments. Bytes: the packed matrix
// once per 128 rows, rows once per 128 outputs. Minimum hardware: sm_80.
#include "kernels/cuda/tiles.cuh"

namespace tandem::cuda {
namespace {

constexpr uint32_t kTokenBytes = kBf16Cols * 2;
constexpr uint32_t kParts = kTokenBytes / 16;
constexpr uint32_t kStageBytes = kTileTokens * kTokenBytes;

// Where 16 bytes `part` of a token's group are.
__device__ __forceinline__ uint32_t PartAt(uint32_t token, uint32_t part) {
  return token * kTokenBytes + 16 * (part ^ (token % 2 * 4));
}

__device__ __forceinline__ void StageTokens(const MatMulCall& call, uint32_t groups, uint32_t group,
                                            uint32_t first, std::byte* to) {
  for (uint32_t i = threadIdx.x; i < kTileTokens * kParts; i += kTileThreads) {
    const uint32_t token = i / kParts, part = i % kParts;
    // Tokens past the last one repeat it; their outputs are not stored.
    const uint64_t from = first + token < call.n ? first + token : call.n - 1;
    CopyAsync16(to + PartAt(token, part),
                call.narrow + (from * groups + group) * kTokenBytes + 16 * part, true);
  }
}

__global__ void __launch_bounds__(kTileThreads, 1)
    TileBf16(const __grid_constant__ MatMulCall call) {
  const TilePlace place(call);
  const MatMulPart& part = *place.part;
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t groups = (call.cols + kBf16Cols - 1) / kBf16Cols;
  std::byte* shared = DynamicShared();

  TileSums sums;
  ChainWalk walk{groups};
  uint32_t stage = 0;
  StageTokens(call, groups, walk.group, place.block_token, shared);
  CommitCopies();
  while (!walk.Done()) {
    const ChainWalk next = walk.Next();
    PlainGroup<DType::kBF16, 2> weights[kWarpPanels];
#pragma unroll
    for (uint32_t p = 0; p < kWarpPanels; ++p) {
      weights[p].Load(part.w + place.panels[p] * part.panel_bytes,
                      part.col_begin + walk.group * kBf16Cols, part.col_begin + call.cols,
                      part.packed_cols, lane);
    }
    if (!next.Done()) {
      StageTokens(call, groups, next.group, place.block_token, shared + (1 - stage) * kStageBytes);
    }
    CommitCopies();
    WaitCopies<1>();
    __syncthreads();  // this group's rows are there
    const std::byte* rows = shared + stage * kStageBytes;
#pragma unroll
    for (uint32_t tile = 0; tile < kWarpTiles; ++tile) {
      const uint32_t token = place.warp_token + 8 * tile + g;
      const uint4 x[2] = {ReadAs<uint4>(rows + PartAt(token, t)),
                          ReadAs<uint4>(rows + PartAt(token, t + 4))};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t b[2] = {At(x[0], i), At(x[1], i)};
#pragma unroll
        for (uint32_t p = 0; p < kWarpPanels; ++p) {
          const uint32_t a[4] = {At(weights[p].units[0][0], i), At(weights[p].units[1][0], i),
                                 At(weights[p].units[0][1], i), At(weights[p].units[1][1], i)};
          MmaBf16(sums.chain[p][tile], a, b);
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

}  // namespace

void LaunchPrefillBf16(const MatMulCall& call, void* stream) {
  const MatMulCall tiled = InTiles(call);
  Launch("BF16 product", TileBf16, dim3((call.n + kTileTokens - 1) / kTileTokens, tiled.panels),
         dim3(kTileThreads), 2 * kStageBytes, stream, tiled);
}

}  // namespace tandem::cuda
