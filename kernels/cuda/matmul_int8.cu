// y = x W^T of quantised weights and int8 rows, for few rows: bound by reading the weights.
//
// A block of eight warps takes one panel of 16 outputs and 4, 8 or 16 tokens; warp c is chain c
// of the contract (matmul.h) and walks its groups alone, the next group's weights under way while
// one is multiplied. Chains meet in shared memory. A lane reads 16 bytes of each row at a time and
// multiplies them as they come: the layout is the tensor core's.
// Weights further on are fetched into L2 (fetch_ahead.h), the first while the kernel before ends.
// Bytes: the packed matrix once per 16 tokens. Minimum hardware: sm_80.
#include "kernels/cuda/int8_block.cuh"
#include "kernels/cuda/joins.cuh"

namespace tandem::cuda {
namespace {

constexpr uint32_t kThreads = kChains * 32;

// kTokens: 4, two columns each (int8_block.cuh), or tiles of 8.
template <DType kType, uint32_t kTokens>
__global__ void __launch_bounds__(kThreads) StreamInt8(const __grid_constant__ MatMulCall call) {
  constexpr bool kFew = kTokens == 4;
  constexpr uint32_t kTiles = kFew ? 1 : kTokens / 8;
  uint32_t panel = blockIdx.y;
  const MatMulPart& part = PartOf(call, panel);
  const std::byte* w = part.w + panel * part.panel_bytes;
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t first_token = blockIdx.x * kTokens;
  const uint32_t blocks = call.cols / kBlockCols;
  const uint32_t groups = (blocks + kGroupBlocks - 1) / kGroupBlocks;
  const uint32_t first_block = part.col_begin / kBlockCols;
  const uint32_t packed_blocks = part.packed_cols / kBlockCols;
  const auto* rows = reinterpret_cast<const PreparedGroup*>(call.narrow);
  const auto fetch_ahead = [&](uint32_t group) {
    if (group >= groups) return;
    FetchGroupAhead<kType>(w, first_block / kGroupBlocks + group, part.panel_bytes);
  };
  for (uint32_t i = 0; i < call.ahead; ++i) fetch_ahead(warp + i * kChains);
  WaitForPrevious();

  float acc[kTiles][4] = {};
  QuantGroup<kType> next;
  if (warp < groups) {
    next.Load(w, first_block + warp * kGroupBlocks, first_block + blocks, packed_blocks, lane);
  }
  for (uint32_t group = warp; group < groups; group += kChains) {
    const QuantGroup<kType> weights = next;
    if (call.ahead > 0) fetch_ahead(group + call.ahead * kChains);
    if (group + kChains < groups) {
      next.Load(w, first_block + (group + kChains) * kGroupBlocks, first_block + blocks,
                packed_blocks, lane);
    }
    TokenGroup<kType, kFew> x[kTiles];
#pragma unroll
    for (uint32_t tile = 0; tile < kTiles; ++tile) {
      x[tile].Load(rows, groups, group, first_token + 8 * tile, call.n, lane);
    }
    const bool odd = (first_block / kGroupBlocks + group) % 2 != 0;
    const uint32_t nb = BlocksInGroup(blocks, group);
#pragma unroll
    for (int j = 0; j < static_cast<int>(kGroupBlocks); ++j) {
      if (j >= static_cast<int>(nb)) break;
      WeightBlock<kType> block;
      block.Unpack(weights, j, odd, lane % 4);
#pragma unroll
      for (uint32_t tile = 0; tile < kTiles; ++tile) {
        AddBlock<kType, kFew>(block, x[tile].Block(j), acc[tile]);
      }
    }
  }

  auto* partial = reinterpret_cast<float*>(DynamicShared());
#pragma unroll
  for (uint32_t tile = 0; tile < kTiles; ++tile) {
    float* to = partial + (warp * kTokens + 8 * tile) * kPanelRows;
    if constexpr (kFew) {
      StoreFew(acc[tile], lane, to);
    } else {
      StoreTile(acc[tile], lane, to);
    }
  }
  JoinChains<kTokens>(call, part, panel, first_token, partial);
}

template <DType kType, uint32_t kTokens>
void LaunchFor(const MatMulCall& call, const GpuStream& stream) {
  LaunchEarly("int8 product", StreamInt8<kType, kTokens>,
              dim3((call.n + kTokens - 1) / kTokens, call.panels), dim3(kThreads),
              JoinFloats(kTokens) * sizeof(float), stream, call);
}

template <DType kType>
void LaunchStream(const MatMulCall& call, const GpuStream& stream) {
  if (call.n <= 4) return LaunchFor<kType, 4>(call, stream);
  if (call.n <= 8) return LaunchFor<kType, 8>(call, stream);
  LaunchFor<kType, 16>(call, stream);
}

}  // namespace

void LaunchMatMulInt8(DType type, const MatMulCall& call, const GpuStream& stream) {
  switch (type) {
    case DType::kQ8_0:
      return LaunchStream<DType::kQ8_0>(call, stream);
    case DType::kQ4_0:
      return LaunchStream<DType::kQ4_0>(call, stream);
    case DType::kQ4_1:
      return LaunchStream<DType::kQ4_1>(call, stream);
    case DType::kQ5_0:
      return LaunchStream<DType::kQ5_0>(call, stream);
    case DType::kQ5_1:
      return LaunchStream<DType::kQ5_1>(call, stream);
    case DType::kQ4_K:
      return LaunchStream<DType::kQ4_K>(call, stream);
    case DType::kQ5_K:
      return LaunchStream<DType::kQ5_K>(call, stream);
    case DType::kQ6_K:
      return LaunchStream<DType::kQ6_K>(call, stream);
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
  }
}

}  // namespace tandem::cuda
