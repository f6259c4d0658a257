// y = x W^T of BF16 weights and BF16 rows, for few rows: bound by reading the weights.
//
// As in matmul_int8.cu, warp c of a block is chain c. A group is 64 columns: a lane reads 16 bytes
// (8 columns) of units t and t + 4 of rows g and g + 8, and of token g; dword i of each feeds
// tensor-core step i. Steps thus take the columns in an order of their own, the same for weights
// and rows: step i multiplies columns 8t + 2i, 8t + 2i + 1 and 32 more than these, t = 0..3. Bytes:
// the packed matrix once per 8 * kTiles tokens. Minimum hardware: sm_80.
#include "kernels/cuda/joins.cuh"

namespace tandem::cuda {
namespace {

constexpr uint32_t kThreads = kChains * 32;
using Group = PlainGroup<DType::kBF16, 2>;

template <uint32_t kTiles>
__global__ void __launch_bounds__(kThreads) StreamBf16(const __grid_constant__ MatMulCall call) {
  uint32_t panel = blockIdx.y;
  const MatMulPart& part = PartOf(call, panel);
  const std::byte* w = part.w + panel * part.panel_bytes;
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t g = lane / 4, t = lane % 4;
  const uint32_t first_token = blockIdx.x * 8 * kTiles;
  const uint32_t groups = (call.cols + kBf16Cols - 1) / kBf16Cols;
  const uint32_t end = part.col_begin + call.cols;

  const auto fetch_ahead = [&](uint32_t group) {
    if (group >= groups) return;
    const uint64_t col = part.col_begin + group * kBf16Cols;
    FetchAhead(w, col * (kPanelRows * 2), kPanelRows * kBf16Cols * 2, part.panel_bytes);
  };
  for (uint32_t i = 0; i < call.ahead; ++i) fetch_ahead(warp + i * kChains);
  WaitForPrevious();
  float acc[kTiles][4] = {};
  Group next;
  if (warp < groups) {
    next.Load(w, part.col_begin + warp * kBf16Cols, end, part.packed_cols, lane);
  }
  for (uint32_t group = warp; group < groups; group += kChains) {
    const Group weights = next;
    if (call.ahead > 0) fetch_ahead(group + call.ahead * kChains);
    if (group + kChains < groups) {
      next.Load(w, part.col_begin + (group + kChains) * kBf16Cols, end, part.packed_cols, lane);
    }
    uint4 x[kTiles][2];
#pragma unroll
    for (uint32_t tile = 0; tile < kTiles; ++tile) {
      const uint32_t token =
          first_token + 8 * tile + g < call.n ? first_token + 8 * tile + g : call.n - 1;
      const std::byte* row = call.narrow + (uint64_t{token} * groups + group) * (kBf16Cols * 2);
      x[tile][0] = ReadAs<uint4>(row + 16 * t);
      x[tile][1] = ReadAs<uint4>(row + 64 + 16 * t);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t a[4] = {At(weights.units[0][0], i), At(weights.units[1][0], i),
                             At(weights.units[0][1], i), At(weights.units[1][1], i)};
#pragma unroll
      for (uint32_t tile = 0; tile < kTiles; ++tile) {
        const uint32_t b[2] = {At(x[tile][0], i), At(x[tile][1], i)};
        MmaBf16(acc[tile], a, b);
      }
    }
  }

  auto* partial = reinterpret_cast<float*>(DynamicShared());
#pragma unroll
  for (uint32_t tile = 0; tile < kTiles; ++tile) {
    StoreTile(acc[tile], lane, partial + (warp * kTiles + tile) * 8 * kPanelRows);
  }
  JoinChains<8 * kTiles>(call, part, panel, first_token, partial);
}

}  // namespace

void LaunchMatMulBf16(const MatMulCall& call, const GpuStream& stream) {
  if (call.n <= 8) {
    LaunchEarly("BF16 product", StreamBf16<1>, dim3(1, call.panels), dim3(kThreads),
                JoinFloats(8) * sizeof(float), stream, call);
  } else {
    LaunchEarly("BF16 product", StreamBf16<2>, dim3((call.n + 15) / 16, call.panels),
                dim3(kThreads), JoinFloats(16) * sizeof(float), stream, call);
  }
}

}  // namespace tandem::cuda
