// Element types: conversions of single values exhaustively, block layouts by hand, and the
// quantisers against the bytes that gguf-py 0.x's numpy implementation gives for the same rows.
#include "engine/model/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "engine/base/sha256.h"

namespace tandem {
namespace {

// 8192 values by integer arithmetic and exact f32 steps: 256 blocks of scales 1 to 2^-8, a block of
// zeros, one of a constant, and one where the extreme has both signs.
std::vector<float> SampleRow() {
  std::vector<float> row(8192);
  for (uint64_t i = 0; i < row.size(); ++i) {
    const uint64_t bits = ((i * 2654435761u) & 0xffffffffu) >> 8;
    row[i] = (static_cast<float>(bits) - 8388607.5f) * 0x1p-22f;
    row[i] *= std::ldexp(1.0f, -static_cast<int>(i / 32 % 9));
  }
  for (size_t j = 0; j < 32; ++j) {
    row[5 * 32 + j] = 0.0f;
    row[6 * 32 + j] = 1.5f;
  }
  const float constant = -row[7 * 32];
  for (size_t j = 0; j < 32; ++j) {
    row[7 * 32 + j] = constant;
  }
  return row;
}

std::vector<std::byte> Quantized(DType type, const std::vector<float>& row) {
  std::vector<std::byte> bytes(RowBytes(type, row.size()));
  QuantizeRow(type, row.data(), bytes.data(), row.size());
  return bytes;
}

std::vector<float> Dequantized(DType type, const std::vector<std::byte>& bytes, size_t elems) {
  std::vector<float> row(elems);
  DequantizeRow(type, bytes.data(), row.data(), elems);
  return row;
}

TEST(DTypeTest, FindsTypesByNumberAndName) {
  for (const DType type : kAllDTypes) {
    EXPECT_EQ(DTypeFromGgml(Traits(type).ggml_type), type);
    EXPECT_EQ(DTypeFromName(ToString(type)), type);
  }
  EXPECT_EQ(DTypeFromName("q4_1"), DType::kQ4_1);
  EXPECT_EQ(DTypeFromName("Bf16"), DType::kBF16);
  EXPECT_EQ(DTypeFromName("q5_k"), DType::kQ5_K);
  EXPECT_FALSE(DTypeFromName("q3_k"));
  EXPECT_FALSE(DTypeFromName(""));
  EXPECT_FALSE(DTypeFromGgml(11));
}

TEST(DTypeTest, CountsRowBytes) {
  EXPECT_EQ(RowBytes(DType::kF32, 576), 2304u);
  EXPECT_EQ(RowBytes(DType::kBF16, 3), 6u);
  EXPECT_EQ(RowBytes(DType::kQ8_0, 576), 612u);
  EXPECT_EQ(RowBytes(DType::kQ4_0, 576), 324u);
  EXPECT_EQ(RowBytes(DType::kQ4_1, 576), 360u);
  EXPECT_EQ(RowBytes(DType::kQ5_0, 576), 396u);
  EXPECT_EQ(RowBytes(DType::kQ5_1, 576), 432u);
  EXPECT_EQ(RowBytes(DType::kQ4_K, 512), 288u);
  EXPECT_EQ(RowBytes(DType::kQ5_K, 512), 352u);
  EXPECT_EQ(RowBytes(DType::kQ6_K, 512), 420u);
  EXPECT_DEATH(RowBytes(DType::kQ6_K, 576), "whole number of blocks");
  EXPECT_DEATH(RowBytes(DType::kQ4_1, 48), "whole number of blocks");
}

TEST(DTypeTest, F16SurvivesTheRoundTripForEveryPattern) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = F16ToF32(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(F16ToF32(F32ToF16(value))));
      continue;
    }
    ASSERT_EQ(F32ToF16(value), bits) << value;
  }
}

// The nearest f16 found by search over all of them, ties to the even pattern.
TEST(DTypeTest, F16RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = F16ToF32(static_cast<uint16_t>(bits));
    const float high = F16ToF32(static_cast<uint16_t>(bits + 1));
    const float middle = (low + high) / 2;  // exact in f32
    const uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    ASSERT_EQ(F32ToF16(middle), even);
    ASSERT_EQ(F32ToF16(std::nextafter(middle, low)), bits);
    ASSERT_EQ(F32ToF16(std::nextafter(middle, high)), bits + 1);
    ASSERT_EQ(F32ToF16(-middle), even | 0x8000u);
  }
  EXPECT_EQ(F32ToF16(65519.0f), 0x7bff);
  EXPECT_EQ(F32ToF16(65520.0f), 0x7c00);
  EXPECT_EQ(F32ToF16(1e30f), 0x7c00);
  EXPECT_EQ(F32ToF16(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(F32ToF16(1e-30f), 0);
}

TEST(DTypeTest, BF16RoundsToNearestEven) {
  EXPECT_EQ(F32ToBF16(std::bit_cast<float>(0x3f808000u)), 0x3f80);
  EXPECT_EQ(F32ToBF16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(F32ToBF16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(F32ToBF16(std::bit_cast<float>(0x7f7fffffu)), 0x7f80);  // rounds up to infinity
  EXPECT_TRUE(std::isnan(BF16ToF32(F32ToBF16(std::bit_cast<float>(0x7f800001u)))));
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = BF16ToF32(static_cast<uint16_t>(bits));
    if (!std::isnan(value)) {
      ASSERT_EQ(F32ToBF16(value), bits);
    }
  }
}

TEST(DTypeTest, ReadsBlocksAsGgmlLaysThemOut) {
  // d = 0.5, q = -3 at element 1
  std::vector<std::byte> q8(34);
  q8[0] = std::byte{0x00};
  q8[1] = std::byte{0x38};
  q8[3] = std::byte{0xfd};
  std::vector<float> row = Dequantized(DType::kQ8_0, q8, 32);
  EXPECT_EQ(row[0], 0.0f);
  EXPECT_EQ(row[1], -1.5f);

  // d = 2, byte 3 = 0xf1: element 3 has q 1, element 19 has q 15
  std::vector<std::byte> q4(18, std::byte{0x88});
  q4[0] = std::byte{0x00};
  q4[1] = std::byte{0x40};
  q4[2 + 3] = std::byte{0xf1};
  row = Dequantized(DType::kQ4_0, q4, 32);
  EXPECT_EQ(row[2], 0.0f);
  EXPECT_EQ(row[3], -14.0f);
  EXPECT_EQ(row[19], 14.0f);

  // d = 2, m = -1
  std::vector<std::byte> q41(20);
  q41[1] = std::byte{0x40};
  q41[3] = std::byte{0xbc};
  q41[4 + 3] = std::byte{0xf1};
  row = Dequantized(DType::kQ4_1, q41, 32);
  EXPECT_EQ(row[2], -1.0f);
  EXPECT_EQ(row[3], 1.0f);
  EXPECT_EQ(row[19], 29.0f);
}

TEST(DTypeTest, QuantizesToTheReferencesBytes) {
  struct Golden {
    DType type;
    const char* stored;
    const char* restored;
  };
  static constexpr Golden kGolden[] = {
      {DType::kF16, "d281e24dea8814d509f47d876a9b04396f547e3a5f73618b0e6277144c0d8d0a",
       "bf945072d0d08bd00be827d6328c6c34b0bc1581dd9c4b19f2daf95909866840"},
      {DType::kBF16, "5c5146c0521de94624b19211264433d73a73a8959cfec23f3f8ce3d321726485",
       "8e1979a4e64e34caedf520f3ae3694333a138800110059f14629ba332a00e51c"},
      {DType::kQ8_0, "ce41ec19ad28042e61f5de933673306afaa6230d2d03626d2208354ffdac8958",
       "85aac450bdd8af7df3450d9eaa8678b4fa828592297376c48273ab0dabfb2da5"},
      {DType::kQ4_0, "261c62dad45d9bafc6ecc8cc2a7bf8ffca42fe5ec4694be90aaee270194d183f",
       "332c62f26c1eb4f61ab3e4a715e843c2bc9ddac94a1be12af040c9928233ecd5"},
      {DType::kQ4_1, "460ce394bf4f8417d68185b6851a1c78fb344f23674e6a49df8cafc0638f0755",
       "901e3481724b62e1a56fb6abdcc11ca2f3b8b35384fe60f1032a34488096d500"},
      {DType::kQ5_0, "8caf67f170e94d18f66ba005e1bd415e33f10a261a5b02d29926dc2d7272d2e1",
       "987c9c1826a03bbc44f8cdcb4c8a8041e8e2d78566261876f99a6a09386e498c"},
      {DType::kQ5_1, "de982f2b229d293e71ba4da3fed7ed228e8378151aebc8ccc90e3b18c1211c25",
       "6b98e09ad327400ec20ba688c1b39a5dd553c79ef941b4e773e2c583182f8022"},
  };
  const std::vector<float> row = SampleRow();
  for (const Golden& golden : kGolden) {
    const std::vector<std::byte> stored = Quantized(golden.type, row);
    EXPECT_EQ(Sha256Hex(std::span(stored)), golden.stored) << ToString(golden.type);
    const std::vector<float> restored = Dequantized(golden.type, stored, row.size());
    EXPECT_EQ(Sha256Hex(std::as_bytes(std::span(restored))), golden.restored)
        << ToString(golden.type);
  }
}

TEST(DTypeTest, F32RowsAreCopied) {
  const std::vector<float> row = SampleRow();
  EXPECT_EQ(Dequantized(DType::kF32, Quantized(DType::kF32, row), row.size()), row);
}

TEST(DTypeTest, QuantizesHostileRowsWithoutHarm) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float tiny = std::numeric_limits<float>::denorm_min();
  for (const float odd : {inf, -inf, nan, tiny, -tiny, std::numeric_limits<float>::max()}) {
    std::vector<float> row(256, 0.25f);
    row[7] = odd;
    std::vector<float> same(256, odd);
    for (const DType type : kAllDTypes) {
      EXPECT_EQ(Dequantized(type, Quantized(type, row), 256).size(), 256u);
      EXPECT_EQ(Dequantized(type, Quantized(type, same), 256).size(), 256u);
    }
  }
}

}  // namespace
}  // namespace tandem
