// Wire types: sizes, rounding, and that a receiver sees exactly what RoundToWire says.
#include "engine/link/wire.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/model/dtype.h"
#include "tests/link/link_fixture.h"

namespace tandem {
namespace {

using testing::RandomFloats;
using testing::SameBits;

constexpr WireType kAll[] = {WireType::kF32, WireType::kBf16, WireType::kQ8};

TEST(WireTest, DecodedMessageIsTheRoundedOne) {
  for (WireType wire : kAll) {
    for (size_t n : {1, 31, 32, 33, 64, 577}) {
      const std::vector<float> x = RandomFloats(n, 7);
      std::vector<std::byte> message(WireBytes(wire, n).value + 1, std::byte{0x5a});
      EncodeWire(wire, x.data(), n, message.data());
      EXPECT_EQ(message.back(), std::byte{0x5a}) << "wrote beyond WireBytes";
      std::vector<float> decoded(n), rounded(n), sum(n, 1.0f);
      DecodeWire(wire, message.data(), n, decoded.data());
      RoundToWire(wire, x.data(), n, rounded.data());
      EXPECT_TRUE(SameBits(decoded, rounded)) << ToString(wire) << " n=" << n;
      DecodeAddWire(wire, message.data(), n, sum.data());
      for (size_t i = 0; i < n; ++i) EXPECT_EQ(sum[i], 1.0f + decoded[i]);
    }
  }
}

TEST(WireTest, F32IsTheIdentity) {
  const std::vector<float> x = RandomFloats(100, 1);
  std::vector<float> y(100);
  RoundToWire(WireType::kF32, x.data(), 100, y.data());
  EXPECT_TRUE(SameBits(x, y));
}

TEST(WireTest, ErrorStaysWithinHalfAStep) {
  const std::vector<float> x = RandomFloats(320, 3);
  std::vector<float> y(320);
  RoundToWire(WireType::kBf16, x.data(), 320, y.data());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_LE(std::fabs(y[i] - x[i]), std::fabs(x[i]) / 256) << i;  // 8 bits of significand
  }
  RoundToWire(WireType::kQ8, x.data(), 320, y.data());
  for (size_t block = 0; block < 10; ++block) {
    float largest = 0;
    for (size_t i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(x[32 * block + i]));
    // Half a step, and what an f16 scale (11 bits) adds at 127 steps.
    const float bound = largest / 127 * 0.5f + largest / 2048;
    for (size_t i = 0; i < 32; ++i) {
      EXPECT_LE(std::fabs(y[32 * block + i] - x[32 * block + i]), bound);
    }
  }
}

TEST(WireTest, Q8KeepsZerosAndShowsTrouble) {
  std::vector<float> x(64, 0.0f), y(64);
  x[40] = std::numeric_limits<float>::quiet_NaN();
  RoundToWire(WireType::kQ8, x.data(), 64, y.data());
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(y[i], 0.0f);
  for (size_t i = 32; i < 64; ++i) EXPECT_TRUE(std::isnan(y[i])) << i;
}

TEST(WireTest, Q8SaturatesWhereTheScaleEnds) {
  std::vector<float> x(32, 1e9f), y(32);
  RoundToWire(WireType::kQ8, x.data(), 32, y.data());
  EXPECT_EQ(y[0], 127.0f * 65504.0f);
}

}  // namespace
}  // namespace tandem
