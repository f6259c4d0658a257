// The arithmetic of the GPU's wire kernels, on the host, against wire.cc: the same bits for every
// kind of value.
#include "engine/link/cuda/wire_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "engine/link/wire.h"
#include "engine/model/dtype.h"

namespace tandem {
namespace {

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
  for (int i = 0; i < 20000; ++i) values.push_back(wire_math::FloatOf(random()));
  return values;
}

bool SameFloat(float a, float b) {
  return wire_math::BitsOf(a) == wire_math::BitsOf(b) || (std::isnan(a) && std::isnan(b));
}

TEST(WireMathTest, Bf16IsThatOfTheHost) {
  for (float x : Numbers()) {
    const uint16_t bits = wire_math::ToBf16(x);
    ASSERT_EQ(bits, F32ToBF16(x)) << x;
    ASSERT_TRUE(SameFloat(wire_math::FromBf16(bits), BF16ToF32(bits))) << x;
  }
}

// One block as a warp makes it.
std::vector<std::byte> EncodeBlock(const float* x, uint64_t n) {
  bool finite = true;
  float largest = 0;
  for (uint64_t i = 0; i < n; ++i) {
    finite = finite && wire_math::IsFinite(x[i]);
    largest = std::fmax(largest, std::fabs(x[i]));
  }
  const uint16_t scale = wire_math::ScaleBits(finite, largest);
  std::vector<std::byte> block(2 + n);
  std::memcpy(block.data(), &scale, 2);
  for (uint64_t i = 0; i < n; ++i) {
    block[2 + i] = static_cast<std::byte>(wire_math::Quantize(x[i], scale));
  }
  return block;
}

void ExpectSameBlock(const std::vector<float>& x) {
  const uint64_t n = x.size();
  std::vector<std::byte> want(2 + n);
  EncodeWire(WireType::kQ8, x.data(), n, want.data());
  const std::vector<std::byte> got = EncodeBlock(x.data(), n);
  ASSERT_TRUE(got == want) << "a block that begins with " << x[0];
  std::vector<float> decoded(n);
  DecodeWire(WireType::kQ8, want.data(), n, decoded.data());
  uint16_t scale;
  std::memcpy(&scale, got.data(), 2);
  for (uint64_t i = 0; i < n; ++i) {
    const float y = wire_math::Dequantize(scale, static_cast<int8_t>(got[2 + i]));
    ASSERT_TRUE(SameFloat(y, decoded[i])) << i << ": " << y << " and " << decoded[i];
  }
}

TEST(WireMathTest, Q8IsThatOfTheHost) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal(0, 1);
  for (int exponent = -60; exponent <= 60; ++exponent) {
    for (uint64_t n : {32u, 1u, 17u}) {
      std::vector<float> x(n);
      for (float& value : x) value = std::ldexp(normal(random), exponent);
      ExpectSameBlock(x);
    }
  }
  const std::vector<float> numbers = Numbers();
  for (size_t at = 0; at + 32 <= numbers.size(); at += 32) {
    ExpectSameBlock(
        {numbers.begin() + static_cast<long>(at), numbers.begin() + static_cast<long>(at + 32)});
  }
  ExpectSameBlock(std::vector<float>(32, 0.0f));
}

}  // namespace
}  // namespace tandem
