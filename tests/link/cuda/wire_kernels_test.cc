// The GPU's wire kernels on an emulated one, against wire.cc: the same bits for every kind of
// value.
#include "engine/link/cuda/wire_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "engine/link/wire.h"

namespace tandem {
namespace {

float FloatOf(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// Ordinary numbers of all sizes, and the ones that are not.
std::vector<float> Numbers() {
  std::vector<float> values{0.0f,
                            -0.0f,
                            std::numeric_limits<float>::denorm_min(),
                            std::numeric_limits<float>::min(),
                            std::numeric_limits<float>::max(),
                            std::numeric_limits<float>::lowest(),
                            std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::signaling_NaN()};
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) values.push_back(FloatOf(random()));
  std::normal_distribution<float> normal(0, 1);
  for (int exponent = -60; exponent <= 60; ++exponent) {
    for (int i = 0; i < 32; ++i) values.push_back(std::ldexp(normal(random), exponent));
  }
  values.resize(values.size() + 32, 0.0f);
  return values;
}

// To the bit, but for the bits of a NaN, of which nothing is promised.
void ExpectSame(const std::vector<float>& got, const std::vector<float>& want) {
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(got[i]) && std::isnan(want[i])) continue;
    ASSERT_EQ(std::memcmp(&got[i], &want[i], sizeof(float)), 0)
        << i << ": " << got[i] << " and " << want[i];
  }
}

class WireKernelsTest : public testing::TestWithParam<WireType> {
 protected:
  // Long enough for more elements than a grid has threads, short and odd ones.
  static std::vector<std::vector<float>> Messages() {
    std::vector<float> all = Numbers();
    std::vector<std::vector<float>> messages{all};
    for (size_t n : {1u, 17u, 32u, 33u, 255u, 257u}) {
      messages.emplace_back(all.end() - 2000, all.end() - 2000 + static_cast<long>(n));
    }
    std::vector<float> longer;
    while (longer.size() < 300000) longer.insert(longer.end(), all.begin(), all.end());
    longer.resize(300001);
    messages.push_back(std::move(longer));
    return messages;
  }
};

TEST_P(WireKernelsTest, GiveTheBitsOfTheHost) {
  const WireType wire = GetParam();
  for (const std::vector<float>& x : Messages()) {
    const uint64_t n = x.size();
    std::vector<std::byte> want(WireBytes(wire, n).value, std::byte{0xee}), got = want;
    EncodeWire(wire, x.data(), n, want.data());
    if (wire == WireType::kF32) {
      got = want;
    } else {
      cuda::LaunchEncode(wire, x.data(), n, got.data(), nullptr);
    }
    ASSERT_TRUE(got == want) << n << " elements";

    std::vector<float> y(n, -1.0f), expected(n);
    DecodeWire(wire, want.data(), n, expected.data());
    cuda::LaunchDecode(wire, want.data(), n, y.data(), nullptr);
    ExpectSame(y, expected);
    if (wire != WireType::kF32) {
      std::vector<float> rounded(n, -1.0f);
      cuda::LaunchRound(wire, x.data(), n, rounded.data(), nullptr);
      ExpectSame(rounded, expected);
    }
    std::vector<float> sums(n);
    for (uint64_t i = 0; i < n; ++i) sums[i] = 0.25f * static_cast<float>(i % 7) - 0.5f;
    for (uint64_t i = 0; i < n; ++i) expected[i] = sums[i] + expected[i];
    cuda::LaunchDecodeAdd(wire, want.data(), n, sums.data(), nullptr);
    ExpectSame(sums, expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Wires, WireKernelsTest,
                         testing::Values(WireType::kF32, WireType::kBf16, WireType::kQ8),
                         [](const auto& param) { return std::string(ToString(param.param)); });

}  // namespace
}  // namespace tandem
