#include <gpu_platform.h>

#include "kernels/cuda/probe_kernels.h"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksAnSm = 8;  // 2,048 threads, what an SM holds at most

// A grid-stride loop with four loads of every thread under way.
__global__ void __launch_bounds__(kThreads) ReadAll(const uint4* from, size_t n, uint32_t* sink) {
  const size_t step = size_t{gridDim.x} * blockDim.x;
  uint32_t sum = 0;
  size_t i = size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + 3 * step < n; i += 4 * step) {
    uint4 values[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) values[j] = LoadOnce(from + i + j * step);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum ^= values[j].x ^ values[j].y ^ values[j].z ^ values[j].w;
  }
  for (; i < n; i += step) sum ^= from[i].x ^ from[i].y ^ from[i].z ^ from[i].w;
  if (sum == 0x9e3779b9u) *sink = sum;  // keeps the loads
}

__global__ void __launch_bounds__(kThreads) CopyAll(const uint4* from, uint4* to, size_t n) {
  const size_t step = size_t{gridDim.x} * blockDim.x;
  size_t i = size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + 3 * step < n; i += 4 * step) {
    uint4 values[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) values[j] = LoadOnce(from + i + j * step);
#pragma unroll
    for (int j = 0; j < 4; ++j) to[i + j * step] = values[j];
  }
  for (; i < n; i += step) to[i] = from[i];
}

__global__ void __launch_bounds__(kThreads)
    Fill(uint32_t* words, size_t n, uint32_t keep, uint32_t set) {
  const size_t step = size_t{gridDim.x} * blockDim.x;
  for (size_t i = size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 31)) * 0xbf58476d1ce4e5b9ull;
    words[i] = (static_cast<uint32_t>(x >> 32) & keep) | set;
  }
}

__global__ void Nothing() {}

dim3 Grid(int sms) { return dim3(static_cast<unsigned>(kBlocksAnSm * sms)); }

}  // namespace

void LaunchReadProbe(const void* from, size_t bytes, uint32_t* sink, int sms, void* stream) {
  Launch("read probe", ReadAll, Grid(sms), dim3(kThreads), 0, stream,
         static_cast<const uint4*>(from), bytes / sizeof(uint4), sink);
}

void LaunchCopyProbe(const void* from, void* to, size_t bytes, int sms, void* stream) {
  Launch("copy probe", CopyAll, Grid(sms), dim3(kThreads), 0, stream,
         static_cast<const uint4*>(from), static_cast<uint4*>(to), bytes / sizeof(uint4));
}

void LaunchFillProbe(uint32_t* words, size_t n, uint32_t keep, uint32_t set, int sms,
                     void* stream) {
  Launch("fill for the probe", Fill, Grid(sms), dim3(kThreads), 0, stream, words, n, keep, set);
}

void LaunchNothing(void* stream) { Launch("nothing", Nothing, dim3(1), dim3(1), 0, stream); }

}  // namespace tandem::cuda
