// y = x W^T with f32 rows and weights of any type, dequantised as they are read: F16 and F32
// models, and `--activations f32`. On the ordinary cores, whatever the number of rows.
//
// As in matmul_int8.cu, warp c of a block is chain c, and lane 4g + t works on rows g and g + 8. Of
// a group the lane takes runs of four columns and adds them in order; the four lanes of a row are
// four sub-chains of the chain, joined as (t0 + t1) + (t2 + t3) at its end; runs.cuh says which
// columns are a lane's.
// Bytes: the packed matrix once per 8 tokens.
#include "kernels/cuda/joins.cuh"
#include "kernels/cuda/runs.cuh"

namespace tandem::cuda {
namespace {

constexpr uint32_t kThreads = kChains * 32;
constexpr uint32_t kTokens = 8;

template <DType kType>
__global__ void __launch_bounds__(kThreads) StreamF32(const __grid_constant__ MatMulCall call) {
  using Group = Runs<kType>;
  uint32_t panel = blockIdx.y;
  const MatMulPart& part = PartOf(call, panel);
  const std::byte* w = part.w + panel * part.panel_bytes;
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t g = lane / 4, t = lane % 4;
  const uint32_t first_token = blockIdx.x * kTokens;
  const uint32_t tokens = call.n - first_token < kTokens ? call.n - first_token : kTokens;
  const uint32_t groups = (call.cols + Group::kCols - 1) / Group::kCols;
  const float* x = call.f32 + uint64_t{first_token} * call.cols;
  const bool vectors = call.cols % 4 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;

  WaitForPrevious();
  float acc[2][kTokens] = {};
  for (uint32_t index = warp; index < groups; index += kChains) {
    Group group;
    group.Load(w, part.col_begin + index * Group::kCols, part.col_begin + call.cols,
               part.packed_cols, lane);
#pragma unroll
    for (int run = 0; run < Group::kRuns; ++run) {
      const uint32_t col = index * Group::kCols + Group::Column(run, t);
      if (col >= call.cols) continue;
      float weights[2][4];
      group.Read(run, t, weights);
#pragma unroll
      for (uint32_t token = 0; token < kTokens; ++token) {
        if (token >= tokens) break;
        const float* from = x + uint64_t{token} * call.cols + col;
        float4 values{};
        if (vectors) {
          values = *reinterpret_cast<const float4*>(from);
        } else {
          values.x = from[0];
          if (col + 1 < call.cols) values.y = from[1];
          if (col + 2 < call.cols) values.z = from[2];
          if (col + 3 < call.cols) values.w = from[3];
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          acc[0][token] = fmaf(weights[0][i], At(values, i), acc[0][token]);
          acc[1][token] = fmaf(weights[1][i], At(values, i), acc[1][token]);
        }
      }
    }
  }

  auto* partial = reinterpret_cast<float*>(DynamicShared());
#pragma unroll
  for (uint32_t token = 0; token < kTokens; ++token) {
#pragma unroll
    for (uint32_t r = 0; r < 2; ++r) {
      float sum = acc[r][token];
      sum += ShuffleXor(sum, 1);
      sum += ShuffleXor(sum, 2);
      if (t == 0) partial[(warp * kTokens + token) * kPanelRows + g + 8 * r] = sum;
    }
  }
  JoinChains<kTokens>(call, part, panel, first_token, partial);
}

template <DType kType>
void LaunchStream(const MatMulCall& call, const GpuStream& stream) {
  LaunchEarly("f32 product", StreamF32<kType>, dim3((call.n + kTokens - 1) / kTokens, call.panels),
              dim3(kThreads), JoinFloats(kTokens) * sizeof(float), stream, call);
}

}  // namespace

void LaunchMatMulF32(DType type, const MatMulCall& call, const GpuStream& stream) {
  switch (type) {
    case DType::kF32:
      return LaunchStream<DType::kF32>(call, stream);
    case DType::kF16:
      return LaunchStream<DType::kF16>(call, stream);
    case DType::kBF16:
      return LaunchStream<DType::kBF16>(call, stream);
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
  }
}

}  // namespace tandem::cuda
