// norm = x / rms(x) * w, and the same of x + y with the sum kept. (n, width) each; w (width).
//
// Rows of up to 512 values take a warp each, eight a block; longer ones a block of 512. The order
// of a row's sum is that of row_norm.cuh. Bytes: x, y and w read, sum and norm written, the sum
// read once more by the threads that wrote it. Minimum hardware: sm_80.
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/rows.h"

namespace tandem::cuda {
namespace {

constexpr uint32_t kShortRows = 8;  // a block
constexpr uint32_t ThreadsOfBlock(bool is_short) {
  return is_short ? 32 * kShortRows : kLongRowThreads;
}

// kAdds: x + y goes to sum, and its norm to norm; otherwise x's norm.
template <bool kShort, bool kAdds>
__global__ void __launch_bounds__(ThreadsOfBlock(kShort)) Norm(const NormCall call) {
  constexpr uint32_t kThreads = kShort ? 32 : kLongRowThreads;
  const uint64_t row =
      kShort ? uint64_t{blockIdx.x} * kShortRows + threadIdx.x / 32 : uint64_t{blockIdx.x};
  WaitForPrevious();
  if (row >= call.n) return;
  const uint64_t at = row * call.width;
  const NormTask task{call.w, call.eps, call.width, call.norm + at};
  const float* x = call.x + at;
  const float* y = kAdds ? call.y + at : nullptr;
  float* sum = kAdds ? call.sum + at : nullptr;
  const bool x_aligned = QuadsAligned(x, call.width), y_aligned = QuadsAligned(y, call.width),
             sum_aligned = QuadsAligned(sum, call.width);
  NormRow<kThreads>(task, threadIdx.x % kThreads, reinterpret_cast<float*>(DynamicShared()),
                    [&](uint32_t i, bool first) {
                      if constexpr (!kAdds) return LoadQuad(x, i, call.width, x_aligned);
                      if (!first) return LoadQuad(sum, i, call.width, sum_aligned);
                      const float4 added = AddQuads(LoadQuad(x, i, call.width, x_aligned),
                                                    LoadQuad(y, i, call.width, y_aligned));
                      StoreQuad(sum, i, call.width, sum_aligned, added);
                      return added;
                    });
}

template <bool kShort, bool kAdds>
void LaunchFor(const NormCall& call, const GpuStream& stream) {
  const uint64_t blocks = kShort ? (call.n + kShortRows - 1) / kShortRows : call.n;
  LaunchEarly(kAdds ? "add and norm" : "norm", Norm<kShort, kAdds>,
              dim3(static_cast<uint32_t>(blocks)), dim3(ThreadsOfBlock(kShort)),
              kShort ? 0 : kLongRowThreads / 32 * sizeof(float), stream, call);
}

}  // namespace

void LaunchNorm(const NormCall& call, const GpuStream& stream) {
  const bool adds = call.sum != nullptr;
  if (call.width <= kShortRow) {
    return adds ? LaunchFor<true, true>(call, stream) : LaunchFor<true, false>(call, stream);
  }
  return adds ? LaunchFor<false, true>(call, stream) : LaunchFor<false, false>(call, stream);
}

const void* AKernel() { return reinterpret_cast<const void*>(&Norm<true, true>); }

}  // namespace tandem::cuda
