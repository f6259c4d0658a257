// The kernels of the GPU's probe, emulated: every byte is read once or copied, what is filled in
// are finite numbers, and nothing is touched beyond.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "engine/model/dtype.h"
#include "engine/model/quant_block.h"
#include "kernels/cuda/probe_kernels.h"

namespace tandem::cuda {
namespace {

constexpr int kSms = 1;

struct alignas(16) Line {
  uint32_t words[4];
};

// Sizes below, at and beyond what the grid takes in one stride of four loads.
const std::vector<size_t> kLines{1, 255, 2048, 4 * 2048, 4 * 2048 + 1, 11 * 2048 + 77};

TEST(CudaProbeKernelsTest, ReadTouchesEveryLineOnce) {
  for (size_t n : kLines) {
    // One line makes its thread's sum the magic word; the sink shows that it was read.
    for (size_t magic : {size_t{0}, n / 2, n - 1}) {
      std::vector<Line> zeros(n, Line{{0, 0, 0, 0}});
      zeros[magic].words[magic % 4] = 0x9e3779b9u;
      uint32_t sink = 0;
      LaunchReadProbe(zeros.data(), n * sizeof(Line), &sink, kSms, nullptr);
      EXPECT_EQ(sink, 0x9e3779b9u) << "line " << magic << " of " << n;
    }
  }
}

TEST(CudaProbeKernelsTest, CopyCopiesAllAndNoMore) {
  for (size_t n : kLines) {
    std::vector<Line> from(n), to(n + 1, Line{{7, 7, 7, 7}});
    for (size_t i = 0; i < n; ++i) from[i] = Line{{uint32_t(i), uint32_t(i * 3), 1, 2}};
    LaunchCopyProbe(from.data(), to.data(), n * sizeof(Line), kSms, nullptr);
    EXPECT_EQ(std::memcmp(from.data(), to.data(), n * sizeof(Line)), 0) << n;
    EXPECT_EQ(to[n].words[0], 7u) << "beyond " << n;
  }
}

TEST(CudaProbeKernelsTest, FillsWithFiniteNumbersOfTheTypesThatAreMultiplied) {
  constexpr size_t kWords = 5000;
  std::vector<uint32_t> words(kWords + 1, 9);
  const auto fill = [&](uint32_t keep, uint32_t set) {
    LaunchFillProbe(words.data(), kWords, keep, set, kSms, nullptr);
    EXPECT_EQ(words[kWords], 9u);
    EXPECT_GT(std::set<uint32_t>(words.begin(), words.end()).size(), kWords / 10) << "varies";
  };
  const auto expect_half_to_one = [](float value) {
    EXPECT_GE(std::abs(value), 0.5f);
    EXPECT_LT(std::abs(value), 1.0f);
  };
  fill(0x807f807f, 0x3f003f00);
  for (size_t i = 0; i < kWords; ++i) expect_half_to_one(BF16ToF32(uint16_t(words[i] >> 16)));
  fill(0x83ff83ff, 0x38003800);
  for (size_t i = 0; i < kWords; ++i) expect_half_to_one(F16ToF32(uint16_t(words[i])));
  fill(0x807fffff, 0x3f000000);
  for (size_t i = 0; i < kWords; ++i) {
    float value;
    std::memcpy(&value, &words[i], sizeof(value));
    expect_half_to_one(value);
  }
  LaunchNothing(nullptr);
}

}  // namespace
}  // namespace tandem::cuda
