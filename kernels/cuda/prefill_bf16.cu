// y = x W^T of BF16 weights and BF16 rows, for many rows: bound by the tensor cores (mma.sync).
//
// Tiles and warps as in tiles.cuh, 128 tokens a block; steps and their order of columns as in
// matmul_bf16.cu, so outputs have its bits. Groups of 64 columns of rows and of weights pass
// through shared memory, two stages, copied asynchronously; 16 bytes of odd tokens change places in
// fours, which frees reads of conflicts. A group that ends within 16 bytes of a row's columns, or
// starts there, is read from where it lies. Bytes: the packed matrix once per 128 rows, rows once
// per 128 outputs. Minimum hardware: sm_80.
#include "kernels/cuda/tiles.cuh"

namespace tandem::cuda {
namespace {

constexpr uint32_t kTiles = 8;
using Place = TilePlace<kTiles>;
using Group = PlainGroup<DType::kBF16, 2>;
constexpr uint32_t kTokenBytes = kBf16Cols * 2;
constexpr uint32_t kParts = kTokenBytes / 16;
constexpr uint32_t kPanelBytes = kPanelRows * kTokenBytes;  // of a group
constexpr uint32_t kWeights = Place::kTokens * kTokenBytes;
constexpr uint32_t kStageBytes = kWeights + kTilePanels * kPanelBytes;

// Where 16 bytes `part` of a token's group are.
__device__ __forceinline__ uint32_t PartAt(uint32_t token, uint32_t part) {
  return token * kTokenBytes + 16 * (part ^ (token % 2 * 4));
}

// A slice's columns in the packed matrix.
struct ColumnRange {
  uint32_t begin, end, packed;

  // Whether a group is whole units of 16 bytes, one after the other.
  __device__ __forceinline__ bool IsWhole(uint32_t group) const {
    const uint32_t col = begin + group * kBf16Cols;
    return col % UnitCols(DType::kBF16) == 0 && col + kBf16Cols <= end;
  }
};

// What a thread brings of each group: 16 bytes of four tokens, and its warp's share of one panel.
struct Bringer {
  static_assert(Place::kTokens * kParts == 4 * kTileThreads);
  static_assert(kTilePanels * 32 == kTileThreads);

  const std::byte* tokens[4];
  const std::byte* panel;

  __device__ __forceinline__ Bringer(const MatMulCall& call, const Place& place, uint32_t groups) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      tokens[i] = call.narrow + place.Token(call, TokenOf(i)) * groups * kTokenBytes +
                  threadIdx.x % kParts * 16;
    }
    panel = place.part->w + place.Panel(threadIdx.x / 32) * place.part->panel_bytes;
  }
  static __device__ __forceinline__ uint32_t TokenOf(uint32_t i) {
    return i * (Place::kTokens / 4) + threadIdx.x / kParts;
  }

  __device__ __forceinline__ void Bring(const ColumnRange& range, uint32_t group,
                                        std::byte* stage) const {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      CopyAsync16(stage + PartAt(TokenOf(i), threadIdx.x % kParts), tokens[i] + group * kTokenBytes,
                  true);
    }
    if (!range.IsWhole(group)) return;
    const uint64_t at = uint64_t{range.begin + group * kBf16Cols} * (kPanelRows * 2);
    std::byte* to = stage + kWeights + threadIdx.x / 32 * kPanelBytes;
#pragma unroll
    for (uint32_t i = threadIdx.x % 32 * 16; i < kPanelBytes; i += 512) {
      CopyAsync16(to + i, panel + at + i, true);
    }
  }
};

__device__ __forceinline__ void ReadWeights(const Place& place, const ColumnRange& range,
                                            uint32_t group, const std::byte* stage, uint32_t p,
                                            Group& weights) {
  const uint32_t lane = threadIdx.x % 32;
  if (!range.IsWhole(group)) {
    weights.Load(place.part->w + place.Panel(place.WarpPanel(p)) * place.part->panel_bytes,
                 range.begin + group * kBf16Cols, range.end, range.packed, lane);
    return;
  }
  const std::byte* from = stage + kWeights + place.WarpPanel(p) * kPanelBytes;
#pragma unroll
  for (uint32_t i = 0; i < 2; ++i) {
#pragma unroll
    for (uint32_t r = 0; r < 2; ++r) {
      weights.units[r][i] =
          ReadAs<uint4>(from + ((lane % 4 + 4 * i) * kPanelRows + lane / 4 + 8 * r) * 16);
    }
  }
}

// A lane's sums: of the chain under way, and of the chains before.
struct TileSums {
  float chain[kWarpPanels][kTiles][4] = {};
  float total[kWarpPanels][kTiles][4] = {};

  __device__ __forceinline__ void EndChain() {
#pragma unroll
    for (uint32_t p = 0; p < kWarpPanels; ++p) {
#pragma unroll
      for (uint32_t tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          total[p][tile][i] += chain[p][tile][i];
          chain[p][tile][i] = 0.0f;
        }
      }
    }
  }
};

// One group of columns into a warp's chain.
__device__ __forceinline__ void AddGroup(const Place& place, const ColumnRange& range,
                                         uint32_t group, const std::byte* stage, TileSums& sums) {
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  Group weights[kWarpPanels];
#pragma unroll
  for (uint32_t p = 0; p < kWarpPanels; ++p) {
    ReadWeights(place, range, group, stage, p, weights[p]);
  }
#pragma unroll
  for (uint32_t tile = 0; tile < kTiles; ++tile) {
    const uint32_t token = place.warp_token + 8 * tile + g;
    const uint4 x[2] = {ReadAs<uint4>(stage + PartAt(token, t)),
                        ReadAs<uint4>(stage + PartAt(token, t + 4))};
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
}

__global__ void __launch_bounds__(kTileThreads, 1)
    TileBf16(const __grid_constant__ MatMulCall call) {
  const Place place(call);
  WaitForPrevious();
  const ColumnRange range{place.part->col_begin, place.part->col_begin + call.cols,
                          place.part->packed_cols};
  const uint32_t groups = (call.cols + kBf16Cols - 1) / kBf16Cols;
  std::byte* stages = DynamicShared();

  TileSums sums;
  ChainWalk walk{groups};
  const Bringer bringer(call, place, groups);
  bringer.Bring(range, walk.group, stages);
  CommitCopies();
  uint32_t slot = 0;
  while (!walk.Done()) {
    const ChainWalk next = walk.Next();
    WaitCopies<0>();
    __syncthreads();  // this group is there for all; the one before is read
    if (!next.Done()) bringer.Bring(range, next.group, stages + (1 - slot) * kStageBytes);
    CommitCopies();
    AddGroup(place, range, walk.group, stages + slot * kStageBytes, sums);
    if (walk.EndsChain()) sums.EndChain();
    walk = next;
    slot = 1 - slot;
  }
#pragma unroll
  for (uint32_t p = 0; p < kWarpPanels; ++p) {
#pragma unroll
    for (uint32_t tile = 0; tile < kTiles; ++tile) {
      place.Store(call, p, tile, sums.total[p][tile]);
    }
  }
}

}  // namespace

void LaunchPrefillBf16(const MatMulCall& call, const GpuStream& stream) {
  const MatMulCall tiled = InTiles(call);
  LaunchEarly("BF16 product", TileBf16,
              dim3((call.n + Place::kTokens - 1) / Place::kTokens, tiled.panels),
              dim3(kTileThreads), 2 * kStageBytes, stream, tiled);
}

}  // namespace tandem::cuda
