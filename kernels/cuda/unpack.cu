// Panels of packed weights (layout.h) -> BF16, row-major.
//
// A warp takes one group of columns of one panel, as the products do, and neighbouring warps take
// neighbouring groups, so reads are whole lines. A lane writes 8 bytes a row of a quantised type,
// and four lanes 32 bytes together, one sector of the cache; 16 and 64 of BF16, whose bits are only
// moved. Bytes: the packed panels once, two an element written, which a product that follows finds
// in the L2 cache where the tile is no larger. Minimum hardware: sm_80.
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/runs.cuh"
#include "kernels/cuda/unpack.h"

namespace tandem::cuda {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kWarps = kThreads / 32;

__device__ __forceinline__ uint32_t Pair(float low, float high) {
  return Bf16Bits(low) | Bf16Bits(high) << 16;
}

// Rows g and g + 8 of the panel from `row` on, whose group of columns begins at `first`.
template <DType kType>
__device__ __forceinline__ void StoreGroup(const Runs<kType>& weights, uint32_t first,
                                           uint32_t stride, uint32_t t, uint16_t* row) {
  if constexpr (kType == DType::kBF16) {
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      const uint32_t col = first + 8 * (t + 4 * i);
#pragma unroll
      for (uint32_t r = 0; r < 2; ++r) {
        *reinterpret_cast<uint4*>(row + uint64_t{8 * r} * stride + col) = weights.group.units[r][i];
      }
    }
    return;
  } else {
#pragma unroll
    for (int run = 0; run < Runs<kType>::kRuns; ++run) {
      const uint32_t col = first + Runs<kType>::Column(run, t);
      if (col >= stride) continue;
      float w[2][4];
      weights.Read(run, t, w);
#pragma unroll
      for (uint32_t r = 0; r < 2; ++r) {
        *reinterpret_cast<uint2*>(row + uint64_t{8 * r} * stride + col) =
            uint2{Pair(w[r][0], w[r][1]), Pair(w[r][2], w[r][3])};
      }
    }
  }
}

template <DType kType>
__global__ void __launch_bounds__(kThreads) UnpackPanels(const UnpackCall call, uint32_t groups) {
  using Group = Runs<kType>;
  static_assert(Group::kCols % kBf16Cols == 0, "a result ends with a group, or a half of one");
  const uint64_t index = uint64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  WaitForPrevious();
  if (index >= uint64_t{call.panels} * groups) return;
  const uint32_t lane = threadIdx.x % 32;
  const uint64_t panel = index / groups;
  const uint32_t first = static_cast<uint32_t>(index % groups) * Group::kCols;
  Group weights;
  weights.Load(call.w + panel * call.panel_bytes, call.col_begin + first,
               call.col_begin + call.cols, call.packed_cols, lane);
  StoreGroup<kType>(weights, first, call.stride, lane % 4,
                    call.out + (panel * kPanelRows + lane / 4) * call.stride);
}

template <DType kType>
void LaunchType(const UnpackCall& call, const GpuStream& stream) {
  const uint32_t groups = (call.stride + Runs<kType>::kCols - 1) / Runs<kType>::kCols;
  const uint64_t warps = uint64_t{call.panels} * groups;
  LaunchEarly("unpacked weights", UnpackPanels<kType>,
              dim3(static_cast<uint32_t>((warps + kWarps - 1) / kWarps)), dim3(kThreads), 0, stream,
              call, groups);
}

}  // namespace

void LaunchUnpack(DType type, const UnpackCall& call, const GpuStream& stream) {
  switch (type) {
    case DType::kF32:
      return LaunchType<DType::kF32>(call, stream);
    case DType::kF16:
      return LaunchType<DType::kF16>(call, stream);
    case DType::kBF16:
      return LaunchType<DType::kBF16>(call, stream);
    case DType::kQ8_0:
      return LaunchType<DType::kQ8_0>(call, stream);
    case DType::kQ4_0:
      return LaunchType<DType::kQ4_0>(call, stream);
    case DType::kQ4_1:
      return LaunchType<DType::kQ4_1>(call, stream);
    case DType::kQ5_0:
      return LaunchType<DType::kQ5_0>(call, stream);
    case DType::kQ5_1:
      return LaunchType<DType::kQ5_1>(call, stream);
    case DType::kQ4_K:
      return LaunchType<DType::kQ4_K>(call, stream);
    case DType::kQ5_K:
      return LaunchType<DType::kQ5_K>(call, stream);
    case DType::kQ6_K:
      return LaunchType<DType::kQ6_K>(call, stream);
  }
}

}  // namespace tandem::cuda
