// Rows of activations as products want them.
//
// Quantize: a warp takes 128 columns of a row, a lane four of them, eight lanes a block of 32.
// ToBf16: a thread takes two columns.
#include <cfloat>

#include "kernels/cuda/rows.h"
#include "kernels/cuda/weights.cuh"
#include "kernels/int8_block.h"

namespace tandem::cuda {
namespace {

constexpr uint32_t kThreads = 128;
constexpr uint32_t kWarps = kThreads / 32;

// A lane's four values as int8, in the struct of its block; what that leaves over stays in values.
__device__ __forceinline__ void TakePart(float (&values)[4], uint32_t lane, PreparedGroup& group) {
  const uint32_t block = lane / 8, part = lane % 8;
  // A value that is not finite counts as infinite: the block then shows it in its scale.
  float top = 0.0f;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float size = fabsf(values[i]);
    top = fmaxf(top, size <= FLT_MAX ? size : INFINITY);
  }
#pragma unroll
  for (int mask = 1; mask < 8; mask *= 2) top = fmaxf(top, ShuffleXor(top, mask));
  const bool finite = top <= FLT_MAX;
  const bool zero = !finite || top < kInt8Tiny;
  const float scale = finite ? (zero ? 0.0f : top / 127.0f) : NAN;
  const float inverse = zero ? 0.0f : 127.0f / top;
  uint32_t word = 0;
  float sum = 0.0f;  // of small integers: exact
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int q = zero ? 0 : static_cast<int>(rintf(values[i] * inverse));
    word |= (static_cast<uint32_t>(q) & 0xffu) << (8 * i);
    sum += static_cast<float>(q);
    values[i] -= scale * static_cast<float>(q);
  }
#pragma unroll
  for (int mask = 1; mask < 8; mask *= 2) sum += ShuffleXor(sum, mask);
  (part < 4 ? group.low[part] : group.high[part - 4])[block] = word;
  if (part != 0) return;
  group.scale[block] = scale;
  group.sum[block] = static_cast<int32_t>(sum);
  group.scaled_sum[block] = scale * sum;
}

__global__ void __launch_bounds__(kThreads)
    Quantize(const float* x, uint32_t cols, uint64_t groups, uint32_t row_groups, uint32_t parts,
             PreparedGroup* out) {
  const uint64_t index = uint64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (index >= groups) return;
  const uint32_t lane = threadIdx.x % 32;
  const uint64_t row = index / row_groups, group = index % row_groups;
  const uint32_t col = static_cast<uint32_t>(group) * kGroupCols + 4 * lane;
  const float* from = x + row * cols + col;
  float values[4] = {};
  if (col < cols) {
    const bool aligned = reinterpret_cast<uintptr_t>(from) % 16 == 0;
    const float4 four = aligned ? *reinterpret_cast<const float4*>(from) : float4{};
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = aligned ? At(four, i) : from[i];
  }
  for (uint32_t part = 0; part < parts; ++part) {
    TakePart(values, lane, out[(row * parts + part) * row_groups + group]);
  }
}

__device__ __forceinline__ uint32_t Bf16Bits(float value) {
  const uint32_t bits = __float_as_uint(value);
  if (!(fabsf(value) <= INFINITY)) return (bits >> 16) | 0x40u;  // a NaN stays one
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

__global__ void __launch_bounds__(kThreads)
    ToBf16(const float* x, uint32_t cols, uint32_t padded, uint16_t* out) {
  const float* row = x + uint64_t{blockIdx.y} * cols;
  const uint32_t col = 2 * (blockIdx.x * kThreads + threadIdx.x);
  if (col >= padded) return;
  uint32_t pair = 0;
  if (col < cols) pair = Bf16Bits(row[col]);
  if (col + 1 < cols) pair |= Bf16Bits(row[col + 1]) << 16;
  *reinterpret_cast<uint32_t*>(out + uint64_t{blockIdx.y} * padded + col) = pair;
}

}  // namespace

void LaunchQuantize(const float* x, uint32_t n, uint32_t cols, uint32_t parts, PreparedGroup* out,
                    void* stream) {
  const uint32_t row_groups = (cols + kGroupCols - 1) / kGroupCols;
  const uint64_t groups = uint64_t{n} * row_groups;
  Launch("int8 rows", Quantize, dim3(static_cast<uint32_t>((groups + kWarps - 1) / kWarps)),
         dim3(kThreads), 0, stream, x, cols, groups, row_groups, parts, out);
}

void LaunchToBf16(const float* x, uint32_t n, uint32_t cols, uint16_t* out, void* stream) {
  const uint32_t padded = (cols + kBf16Cols - 1) / kBf16Cols * kBf16Cols;
  constexpr uint32_t kMostRows = 32768;  // a grid's y ends at 65535
  for (uint32_t first = 0; first < n; first += kMostRows) {
    const uint32_t rows = n - first < kMostRows ? n - first : kMostRows;
    Launch("BF16 rows", ToBf16, dim3((padded / 2 + kThreads - 1) / kThreads, rows), dim3(kThreads),
           0, stream, x + uint64_t{first} * cols, cols, padded, out + uint64_t{first} * padded);
  }
}

}  // namespace tandem::cuda
