// The k largest values of each row, best first, equal ones by column: the ids that sampling chooses
// among, where they are.
//
// A row is cut into segments, a block each. A block takes k rounds: every thread holds the best of
// its own columns (every 256th) that was not taken yet, the block finds the best of those in shared
// memory, and the thread whose column it was looks for its next. A second launch does the same over
// the entries that the segments of a row have left. No arithmetic, so no rounding: the result is
// that of kernels/ref to the bit.
//
// Bytes: the row once, and from the cache as often as a thread's columns are taken. Minimum
// hardware: sm_80.
#include "kernels/cuda/top_k.h"
#include "kernels/cuda/weights.cuh"

namespace tandem::cuda {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kLeastSegment = 4096;  // columns
constexpr uint32_t kMostSegments = 64;

constexpr TopEntry kNothing{0.0f, kNoEntry};

// Any entry is better than none, and a NaN better than all: it comes out first.
__device__ __forceinline__ bool Better(const TopEntry& a, const TopEntry& b) {
  if (a.id < 0 || b.id < 0) return a.id != b.id && (a.id == kNotANumber || b.id == kNoEntry);
  return a.value != b.value ? a.value > b.value : a.id < b.id;
}

// A part of a row.
struct Columns {
  const float* x;
  uint32_t begin;
  __device__ __forceinline__ TopEntry At(uint32_t i) const {
    const float value = x[begin + i];
    if (value != value) return TopEntry{0.0f, kNotANumber};
    return TopEntry{value, static_cast<int32_t>(begin + i)};
  }
};

// What its segments have left.
struct Entries {
  const TopEntry* from;
  __device__ __forceinline__ TopEntry At(uint32_t i) const { return from[i]; }
};

// The best of the thread's own that `taken`, the last that any thread gave, is better than.
template <typename Source>
__device__ TopEntry BestOfOwn(const Source& source, uint32_t n, const TopEntry* taken) {
  TopEntry best = kNothing;
  for (uint32_t i = threadIdx.x; i < n; i += kThreads) {
    const TopEntry entry = source.At(i);
    if (taken != nullptr && !Better(*taken, entry)) continue;
    if (Better(entry, best)) best = entry;
  }
  return best;
}

// Called by all threads of a block; writes out (k).
template <typename Source>
__device__ void TakeBest(const Source& source, uint32_t n, uint32_t k, TopEntry* out) {
  auto* shared = reinterpret_cast<TopEntry*>(DynamicShared());  // [kThreads]
  TopEntry own = BestOfOwn(source, n, nullptr);
  for (uint32_t round = 0; round < k; ++round) {
    shared[threadIdx.x] = own;
    __syncthreads();  // every thread's best is there
    for (uint32_t half = kThreads / 2; half > 0; half /= 2) {
      if (threadIdx.x < half && Better(shared[threadIdx.x + half], shared[threadIdx.x])) {
        shared[threadIdx.x] = shared[threadIdx.x + half];
      }
      __syncthreads();  // the better of each pair is there
    }
    const TopEntry best = shared[0];
    __syncthreads();  // all have read it before the next round writes
    if (threadIdx.x == 0) out[round] = best;
    if (best.id == kNotANumber) {
      // The row is told by that alone.
      for (uint32_t i = round + threadIdx.x; i < k; i += kThreads) out[i] = best;
      return;
    }
    if (own.id >= 0 && own.id == best.id) own = BestOfOwn(source, n, &best);
  }
}

__global__ void __launch_bounds__(kThreads)
    TopKOfSegments(const float* x, uint32_t width, uint32_t segment, uint32_t k, TopEntry* out) {
  const uint32_t begin = blockIdx.x * segment;
  const uint32_t n = width - begin < segment ? width - begin : segment;
  TakeBest(Columns{x + uint64_t{blockIdx.y} * width, begin}, n, k,
           out + (uint64_t{blockIdx.y} * gridDim.x + blockIdx.x) * k);
}

__global__ void __launch_bounds__(kThreads)
    TopKOfEntries(const TopEntry* from, uint32_t n, uint32_t k, TopEntry* out) {
  TakeBest(Entries{from + uint64_t{blockIdx.x} * n}, n, k, out + uint64_t{blockIdx.x} * k);
}

uint32_t SegmentOf(uint32_t width) {
  const uint32_t even = (width + kMostSegments - 1) / kMostSegments;
  return even > kLeastSegment ? even : kLeastSegment;
}

uint32_t SegmentsOf(uint32_t width) { return (width + SegmentOf(width) - 1) / SegmentOf(width); }

}  // namespace

uint64_t TopKScratch(uint64_t n, uint32_t width, uint32_t k) {
  const uint32_t segments = SegmentsOf(width);
  return segments == 1 ? 0 : n * segments * k * sizeof(TopEntry);
}

void LaunchTopK(const float* x, uint32_t n, uint32_t width, uint32_t k, std::byte* scratch,
                TopEntry* out, void* stream) {
  const uint32_t segments = SegmentsOf(width);
  auto* parts = segments == 1 ? out : reinterpret_cast<TopEntry*>(scratch);
  constexpr uint32_t kShared = kThreads * sizeof(TopEntry);
  Launch("top k", TopKOfSegments, dim3(segments, n), dim3(kThreads), kShared, stream, x, width,
         SegmentOf(width), k, parts);
  if (segments == 1) return;
  Launch("top k", TopKOfEntries, dim3(n), dim3(kThreads), kShared, stream, parts, segments * k, k,
         out);
}

}  // namespace tandem::cuda
