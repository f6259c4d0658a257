// The rotation of q and k, and what goes into the KV pages.
//
// Angles are computed in double, once for the rows of a step, as kernels/ref/rope.cc says. The rows
// of a layer then take a block each: first all pairs are rotated in place, then k and v are rounded
// to f16 into the row's page.
#include "kernels/cuda/rows.h"
#include "kernels/cuda/weights.cuh"

namespace tandem::cuda {
namespace {

constexpr uint32_t kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    Angles(const RowPlace* rows, uint32_t n, const double* frequencies, uint32_t half,
           float magnitude, float2* angles) {
  const uint64_t i = uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  WaitForPrevious();
  if (i >= uint64_t{n} * half) return;
  const double angle = rows[i / half].position * frequencies[i % half];
  angles[i] = float2{static_cast<float>(cos(angle) * magnitude),
                     static_cast<float>(sin(angle) * magnitude)};
}

// Pair i of `heads` heads (heads, hd).
__device__ __forceinline__ void Rotate(float* heads, uint32_t i, uint32_t hd, const RopeCall& call,
                                       const float2* angles) {
  const uint32_t pair = i % call.half;
  float* head = heads + uint64_t{i / call.half} * hd;
  const uint32_t first = call.interleaved ? 2 * pair : pair;
  const uint32_t second = call.interleaved ? first + 1 : pair + call.half;
  const float a = head[first], b = head[second];
  const float2 turn = angles[pair];
  head[first] = a * turn.x - b * turn.y;
  head[second] = a * turn.y + b * turn.x;
}

__global__ void __launch_bounds__(kThreads) RopeAndStore(const RopeCall call) {
  WaitForPrevious();
  const RowPlace place = call.rows[blockIdx.x];
  const auto* angles =
      reinterpret_cast<const float2*>(call.angles) + uint64_t{blockIdx.x} * call.half;
  const uint32_t hd = call.kv.head_dim;
  const uint32_t q_pairs = call.q_heads * call.half;
  const uint32_t pairs = q_pairs + call.kv.kv_heads * call.half;
  float* q = call.q + uint64_t{place.row} * call.q_heads * hd;
  float* k = call.k + uint64_t{place.row} * call.kv.kv_heads * hd;
  const float* v = call.v + uint64_t{place.row} * call.kv.kv_heads * hd;
  for (uint32_t i = threadIdx.x; i < pairs; i += kThreads) {
    if (i < q_pairs) {
      Rotate(q, i, hd, call, angles);
    } else {
      Rotate(k, i - q_pairs, hd, call, angles);
    }
  }
  __syncthreads();  // k is rotated, by other threads than those that store it
  const uint32_t width = call.kv.kv_heads * hd;
  auto* page = reinterpret_cast<uint16_t*>(call.kv.base +
                                           static_cast<uint64_t>(place.page) * call.kv.stride);
  for (uint32_t i = threadIdx.x; i < width; i += kThreads) {
    const uint64_t at =
        (uint64_t{i / hd} * kPageTokens + place.position % kPageTokens) * hd + i % hd;
    page[at] = FloatToHalf(k[i]);
    page[uint64_t{width} * kPageTokens + at] = FloatToHalf(v[i]);
  }
}

}  // namespace

void LaunchAngles(const RowPlace* rows, uint32_t n, const double* frequencies, uint32_t half,
                  float magnitude, float* angles, const GpuStream& stream) {
  const uint64_t count = uint64_t{n} * half;
  LaunchEarly("angles", Angles, dim3(static_cast<uint32_t>((count + kThreads - 1) / kThreads)),
              dim3(kThreads), 0, stream, rows, n, frequencies, half, magnitude,
              reinterpret_cast<float2*>(angles));
}

void LaunchRopeAndStore(const RopeCall& call, const GpuStream& stream) {
  LaunchEarly("rotation", RopeAndStore, dim3(call.n), dim3(kThreads), 0, stream, call);
}

}  // namespace tandem::cuda
