// The norm of one row, by a warp or a block: for kernels/cuda, and for a kernel that has just
// summed the row from several devices (engine/link/cuda).
//
// A row is quads of four values; of kThreads threads, thread i adds the squares of quads i,
// i + kThreads, ... in order. Lanes are joined as a butterfly, warps in order. So a norm has the
// same bits whichever kernel computes it, given kThreads: RowThreads says which a row's width asks.
#pragma once

#include <gpu_platform.h>

namespace tandem::cuda {

inline constexpr uint32_t kShortRow = 512;  // values; longer rows take a block
inline constexpr uint32_t kLongRowThreads = 512;
constexpr uint32_t RowThreads(uint32_t width) { return width <= kShortRow ? 32 : kLongRowThreads; }

__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int mask = 1; mask < 32; mask *= 2) value += ShuffleXor(value, mask);
  return value;
}

// Whether quads of rows at `p` lie at multiples of 16 bytes.
__device__ __forceinline__ bool QuadsAligned(const void* p, uint32_t width) {
  return width % 4 == 0 && reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

// Quad i of a row; zeros past its end.
__device__ __forceinline__ float4 LoadQuad(const float* row, uint32_t i, uint32_t width,
                                           bool aligned) {
  if (aligned) return reinterpret_cast<const float4*>(row)[i];
  const uint32_t at = 4 * i;
  float4 quad{};
  quad.x = row[at];
  if (at + 1 < width) quad.y = row[at + 1];
  if (at + 2 < width) quad.z = row[at + 2];
  if (at + 3 < width) quad.w = row[at + 3];
  return quad;
}
__device__ __forceinline__ void StoreQuad(float* row, uint32_t i, uint32_t width, bool aligned,
                                          const float4& quad) {
  if (aligned) {
    reinterpret_cast<float4*>(row)[i] = quad;
    return;
  }
  const uint32_t at = 4 * i;
  row[at] = quad.x;
  if (at + 1 < width) row[at + 1] = quad.y;
  if (at + 2 < width) row[at + 2] = quad.z;
  if (at + 3 < width) row[at + 3] = quad.w;
}

__device__ __forceinline__ float4 AddQuads(const float4& a, const float4& b) {
  return float4{a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

struct NormTask {
  const float* w = nullptr;  // (width)
  float eps = 0.0f;
  uint32_t width = 0;
  float* norm = nullptr;  // the row's result
};

// norm = row / rms(row) * w, where read(i) gives quad i of the row; it is called twice a quad, by
// the same thread, and may leave the quad somewhere the first time and fetch it there the second:
// norm is written after. `thread` of kThreads; all call. shared: a float a warp, of a block's.
template <uint32_t kThreads, typename Read>
__device__ __forceinline__ void NormRow(const NormTask& task, uint32_t thread, float* shared,
                                        const Read& read) {
  const uint32_t quads = (task.width + 3) / 4;
  float squares = 0.0f;
  for (uint32_t i = thread; i < quads; i += kThreads) {
    const float4 v = read(i, true);
    squares = fmaf(v.x, v.x, squares);
    squares = fmaf(v.y, v.y, squares);
    squares = fmaf(v.z, v.z, squares);
    squares = fmaf(v.w, v.w, squares);
  }
  squares = WarpSum(squares);
  if constexpr (kThreads > 32) {
    if (thread % 32 == 0) shared[thread / 32] = squares;
    __syncthreads();  // every warp's sum is there
    squares = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < kThreads / 32; ++i) squares += shared[i];
  }
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(task.width) + task.eps);
  const bool w_aligned = QuadsAligned(task.w, task.width);
  const bool aligned = QuadsAligned(task.norm, task.width);
  for (uint32_t i = thread; i < quads; i += kThreads) {
    const float4 v = read(i, false);
    const float4 w = LoadQuad(task.w, i, task.width, w_aligned);
    StoreQuad(task.norm, i, task.width, aligned,
              {v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w});
  }
}

}  // namespace tandem::cuda
