// The emulation itself: that its threads meet as CUDA's do, that its warp operations are the PTX
// ISA's, and that it catches what it is there to catch.
#include <gpu_platform.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "engine/model/dtype.h"

namespace tandem::cuda {
namespace {

__global__ void AddUp(const int* from, int* to) {
  auto* sums = reinterpret_cast<int*>(DynamicShared());
  sums[threadIdx.x] = from[blockIdx.x * blockDim.x + threadIdx.x];
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) to[blockIdx.x] = sums[0];
}

TEST(CudaEmulationTest, ThreadsOfABlockMeetAtBarriers) {
  std::vector<int> from(5 * 128), to(5);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<int>(i * i % 97);
  Launch("test", AddUp, dim3(5), dim3(128), 128 * 4, nullptr, from.data(), to.data());
  for (size_t b = 0; b < 5; ++b) {
    int want = 0;
    for (size_t i = 0; i < 128; ++i) want += from[b * 128 + i];
    EXPECT_EQ(to[b], want);
  }
}

__global__ void Exchange(float* to) {
  to[threadIdx.x] = ShuffleXor(static_cast<float>(threadIdx.x), 5);
}

TEST(CudaEmulationTest, LanesExchangeTheirValues) {
  std::vector<float> to(64);
  Launch("test", Exchange, dim3(1), dim3(64), 0, nullptr, to.data());
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(to[i], static_cast<float>(i ^ 5));
}

// a (16, 32), b (32, 8), c (16, 8) of int8 through the fragments of the PTX ISA.
__global__ void Int8Tile(const int8_t* a, const int8_t* b, int32_t* c) {
  const uint32_t lane = threadIdx.x, g = lane / 4, t = lane % 4;
  uint32_t fa[4] = {}, fb[2] = {};
  for (uint32_t i = 0; i < 4; ++i) {
    for (uint32_t j = 0; j < 4; ++j) {
      const auto byte = static_cast<uint8_t>(a[(g + i % 2 * 8) * 32 + i / 2 * 16 + 4 * t + j]);
      fa[i] |= uint32_t{byte} << (8 * j);
    }
  }
  for (uint32_t i = 0; i < 2; ++i) {
    for (uint32_t j = 0; j < 4; ++j) {
      fb[i] |= uint32_t{static_cast<uint8_t>(b[(i * 16 + 4 * t + j) * 8 + g])} << (8 * j);
    }
  }
  const int32_t start[4] = {1, 2, 3, 4};
  int32_t fc[4];
  MmaS8(fc, fa, fb, start);
  for (uint32_t i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fc[i];
}

TEST(CudaEmulationTest, Int8TileIsTheProduct) {
  std::mt19937 random(3);
  std::vector<int8_t> a(16 * 32), b(32 * 8);
  for (int8_t& x : a) x = static_cast<int8_t>(random());
  for (int8_t& x : b) x = static_cast<int8_t>(random());
  std::vector<int32_t> c(16 * 8);
  Launch("test", Int8Tile, dim3(1), dim3(32), 0, nullptr, a.data(), b.data(), c.data());
  for (int row = 0; row < 16; ++row) {
    for (int col = 0; col < 8; ++col) {
      int32_t want = 1 + col % 2 + row / 8 * 2;
      for (int k = 0; k < 32; ++k) want += a[row * 32 + k] * b[k * 8 + col];
      EXPECT_EQ(c[row * 8 + col], want) << row << " " << col;
    }
  }
}

__global__ void HalfTile(const uint16_t* a, const uint16_t* b, float* c) {
  const uint32_t lane = threadIdx.x, g = lane / 4, t = lane % 4;
  uint32_t fa[4], fb[2];
  for (uint32_t i = 0; i < 4; ++i) {
    const uint16_t* at = a + (g + i % 2 * 8) * 16 + i / 2 * 8 + 2 * t;
    fa[i] = at[0] | uint32_t{at[1]} << 16;
  }
  for (uint32_t i = 0; i < 2; ++i) {
    const uint16_t* at = b + (i * 8 + 2 * t) * 8 + g;
    fb[i] = at[0] | uint32_t{at[8]} << 16;
  }
  float fc[4] = {};
  MmaF16(fc, fa, fb);
  for (uint32_t i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fc[i];
}

TEST(CudaEmulationTest, HalfTileIsTheProduct) {
  std::vector<uint16_t> a(16 * 16), b(16 * 8);
  for (size_t i = 0; i < a.size(); ++i) a[i] = F32ToF16(static_cast<float>(i % 13) - 6.0f);
  for (size_t i = 0; i < b.size(); ++i) b[i] = F32ToF16(static_cast<float>(i % 7) - 3.0f);
  std::vector<float> c(16 * 8);
  Launch("test", HalfTile, dim3(1), dim3(32), 0, nullptr, a.data(), b.data(), c.data());
  for (int row = 0; row < 16; ++row) {
    for (int col = 0; col < 8; ++col) {
      float want = 0.0f;
      for (int k = 0; k < 16; ++k) want += F16ToF32(a[row * 16 + k]) * F16ToF32(b[k * 8 + col]);
      EXPECT_EQ(c[row * 8 + col], want) << row << " " << col;
    }
  }
}

__global__ void Misuse(int kind, float* to) {
  auto* shared = reinterpret_cast<float*>(DynamicShared());
  if (kind == 1 && threadIdx.x != 7) SyncWarp();
  if (kind == 2) shared[64] = 1.0f;
  if (kind == 3) to[threadIdx.x] = shared[threadIdx.x];
  if (kind == 4) {  // reads its neighbours' values without a barrier
    shared[threadIdx.x] = 1.0f;
    to[threadIdx.x] = shared[63 - threadIdx.x];
  }
}

void RunMisuse(int kind, float* to) {
  Launch("test", Misuse, dim3(2), dim3(64), 64 * 4, nullptr, kind, to);
}

TEST(CudaEmulationDeathTest, CatchesAWarpWithoutOneLane) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(RunMisuse(1, nullptr), "never come");
}

TEST(CudaEmulationDeathTest, CatchesAnOverrunOfSharedMemory) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(RunMisuse(2, nullptr), "overrun");
}

TEST(CudaEmulationTest, SharedMemoryStartsPoisonedAndMissingBarriersShow) {
  std::vector<float> to(64, 0.0f);
  RunMisuse(3, to.data());
  for (float value : to) EXPECT_TRUE(std::isnan(value));
  RunMisuse(4, to.data());
  int stale = 0;
  for (float value : to) stale += std::isnan(value) ? 1 : 0;
  EXPECT_GT(stale, 0);
}

__global__ void WaitSome(uint32_t waiting) {
  if (threadIdx.x < waiting) WaitForPrevious();
}

TEST(CudaEmulationDeathTest, CatchesAnEarlyKernelWhoseThreadsDoNotWait) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  LaunchAs(true, "test", WaitSome, dim3(2), dim3(64), 0, nullptr, 64u);
  LaunchAs(false, "test", WaitSome, dim3(2), dim3(64), 0, nullptr, 0u);
  EXPECT_DEATH(LaunchAs(true, "test", WaitSome, dim3(2), dim3(64), 0, nullptr, 63u),
               "never waited");
}

// Two groups of copies, of which `waited` are waited for.
__global__ void CopyAhead(const float* from, int waited, float* to) {
  auto* shared = reinterpret_cast<float*>(DynamicShared());
  CopyAsync16(shared, from, true);
  CommitCopies();
  CopyAsync16(shared + 4, from + 4, false);
  CopyAsync4(shared + 8, from + 8);
  CommitCopies();
  if (waited == 1) WaitCopies<1>();
  if (waited == 2) WaitCopies<0>();
  for (int i = 0; i < 9; ++i) to[i] = shared[i];
}

TEST(CudaEmulationTest, AsynchronousCopiesAreThereOnceWaitedFor) {
  const std::vector<float> from = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  for (int waited : {0, 1, 2}) {
    std::vector<float> to(9);
    Launch("test", CopyAhead, dim3(1), dim3(1), 36, nullptr, from.data(), waited, to.data());
    for (size_t i = 0; i < 9; ++i) {
      const bool there = i < 4 ? waited >= 1 : waited == 2;
      const float want = i < 4 || i == 8 ? from[i] : 0.0f;  // what is not inside is zero
      EXPECT_TRUE(there ? to[i] == want : std::isnan(to[i])) << waited << " " << i;
    }
  }
}

}  // namespace
}  // namespace tandem::cuda
