// Rows of activations as products want them.
//
// With kGated a value is silu(x) * up, as SwiGLU gives it.
// Quantize: a warp takes 128 columns of a row, a lane four of them, eight lanes a block of 32.
// ToBf16: a thread takes two columns.
#include <cfloat>

#include "kernels/cuda/rows.cuh"
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

// Four values from `at` on in the rows.
template <bool kGated>
__device__ __forceinline__ void ReadFour(const PrepareCall& call, uint64_t at, float (&values)[4]) {
  const float4 x = LoadQuad(call.x + at, 0, 4, QuadsAligned(call.x + at, 4));
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = At(x, i);
  if constexpr (kGated) {
    const float4 up = LoadQuad(call.up + at, 0, 4, QuadsAligned(call.up + at, 4));
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = GatedUp(values[i], At(up, i));
  }
}

template <bool kGated>
__global__ void __launch_bounds__(kThreads)
    Quantize(const PrepareCall call, uint64_t groups, uint32_t parts, PreparedGroup* out) {
  const uint64_t index = uint64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  WaitForPrevious();
  if (index >= groups) return;
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t row_groups = (call.cols + kGroupCols - 1) / kGroupCols;
  const uint64_t row = index / row_groups, group = index % row_groups;
  const uint32_t col = static_cast<uint32_t>(group) * kGroupCols + 4 * lane;
  float values[4] = {};
  if (col < call.cols) ReadFour<kGated>(call, row * call.cols + col, values);
  for (uint32_t part = 0; part < parts; ++part) {
    TakePart(values, lane, out[(row * parts + part) * row_groups + group]);
  }
}

template <bool kGated>
__global__ void __launch_bounds__(kThreads)
    ToBf16(const PrepareCall call, uint32_t padded, uint16_t* out) {
  const uint64_t row = uint64_t{blockIdx.y} * call.cols;
  const uint32_t col = 2 * (blockIdx.x * kThreads + threadIdx.x);
  WaitForPrevious();
  if (col >= padded) return;
  const auto bits_of = [&](uint32_t at) {
    if (at >= call.cols) return 0u;
    const float x = call.x[row + at];
    return Bf16Bits(kGated ? GatedUp(x, call.up[row + at]) : x);
  };
  *reinterpret_cast<uint32_t*>(out + uint64_t{blockIdx.y} * padded + col) =
      bits_of(col) | bits_of(col + 1) << 16;
}

}  // namespace

void LaunchQuantize(const PrepareCall& call, uint32_t parts, PreparedGroup* out,
                    const GpuStream& stream) {
  const uint64_t groups = uint64_t{call.n} * ((call.cols + kGroupCols - 1) / kGroupCols);
  LaunchEarly("int8 rows", call.up == nullptr ? Quantize<false> : Quantize<true>,
              dim3(static_cast<uint32_t>((groups + kWarps - 1) / kWarps)), dim3(kThreads), 0,
              stream, call, groups, parts, out);
}

void LaunchToBf16(const PrepareCall& call, uint16_t* out, const GpuStream& stream) {
  const uint32_t padded = (call.cols + kBf16Cols - 1) / kBf16Cols * kBf16Cols;
  constexpr uint32_t kMostRows = 32768;  // a grid's y ends at 65535
  for (uint32_t first = 0; first < call.n; first += kMostRows) {
    PrepareCall part = call;
    part.n = call.n - first < kMostRows ? call.n - first : kMostRows;
    part.x += uint64_t{first} * call.cols;
    if (call.up != nullptr) part.up += uint64_t{first} * call.cols;
    LaunchEarly("BF16 rows", call.up == nullptr ? ToBf16<false> : ToBf16<true>,
                dim3((padded / 2 + kThreads - 1) / kThreads, part.n), dim3(kThreads), 0, stream,
                part, padded, out + uint64_t{first} * padded);
  }
}

}  // namespace tandem::cuda
