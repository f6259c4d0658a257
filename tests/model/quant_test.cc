// Quantised blocks: against gguf-py's dequantisers on random bytes (tests/golden/quant, made by
// tools/make-quant-golden), taking apart and putting together, and the error of the K quantisers.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "engine/model/quant_block.h"

namespace tandem {
namespace {

constexpr DType kQuantized[] = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,
                                DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

std::vector<char> ReadGolden(DType type) {
  std::ifstream file(std::string(TANDEM_QUANT_GOLDEN) + "/" + ToString(type) + ".bin",
                     std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// To the bit: in every type the products of scales and integers fit f32's 24 bits, so there is one
// rounding at most, whatever the order.
TEST(QuantTest, DequantizesRandomBlocksAsGgufPyDoes) {
  for (const DType type : kQuantized) {
    const std::vector<char> golden = ReadGolden(type);
    const DTypeTraits& traits = Traits(type);
    const size_t block_size = traits.block_bytes + 4 * traits.block_elems;
    const size_t blocks = golden.size() / block_size;
    ASSERT_GE(blocks, 4u) << ToString(type);
    ASSERT_EQ(golden.size(), blocks * block_size);
    std::vector<float> want(blocks * traits.block_elems);
    std::memcpy(want.data(), golden.data() + blocks * traits.block_bytes, want.size() * 4);
    std::vector<float> got(want.size());
    DequantizeRow(type, golden.data(), got.data(), got.size());
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_EQ(std::memcmp(&got[i], &want[i], 4), 0)
          << ToString(type) << " element " << i << ": " << got[i] << ", want " << want[i];
    }
  }
}

TEST(QuantTest, PutsTogetherWhatItTookApart) {
  std::mt19937 random(3);
  for (const DType type : kQuantized) {
    std::vector<std::byte> block(Traits(type).block_bytes);
    for (int round = 0; round < 20; ++round) {
      for (std::byte& byte : block) byte = static_cast<std::byte>(random());
      int8_t q[kMaxBlockElems];
      ReadCodes(type, block.data(), q);
      std::vector<std::byte> copy = block;
      WriteCodes(type, q, copy.data());
      EXPECT_EQ(copy, block) << ToString(type);
      // Every code bit is set anew, whatever stood there.
      std::vector<int8_t> zero(kMaxBlockElems, 0);
      WriteCodes(type, zero.data(), copy.data());
      WriteCodes(type, q, copy.data());
      EXPECT_EQ(copy, block) << ToString(type);
    }
  }
}

TEST(QuantTest, PacksSixBitScalesAndMinima) {
  std::mt19937 random(4);
  for (int round = 0; round < 50; ++round) {
    uint8_t in[2][kKSubBlocks];
    uint8_t out[2][kKSubBlocks];
    for (auto& list : in) {
      for (uint8_t& value : list) value = random() % 64;
    }
    std::byte packed[kKScaleBytes];
    PackKScales(in[0], in[1], packed);
    UnpackKScales(packed, out[0], out[1]);
    EXPECT_EQ(std::memcmp(in, out, sizeof(in)), 0);
  }
}

// Root mean square error relative to the values' own.
double RelativeError(DType type, const std::vector<float>& x) {
  std::vector<std::byte> stored(RowBytes(type, x.size()));
  std::vector<float> back(x.size());
  QuantizeRow(type, x.data(), stored.data(), x.size());
  DequantizeRow(type, stored.data(), back.data(), x.size());
  double error = 0.0;
  double size = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += (double{x[i]} - back[i]) * (double{x[i]} - back[i]);
    size += double{x[i]} * x[i];
  }
  return std::sqrt(error / size);
}

// Normally distributed weights, as trained ones nearly are.
std::vector<float> Bell(size_t n, float center) {
  std::mt19937 random(5);
  std::vector<float> x(n);
  for (float& value : x) {
    value = center;
    for (int i = 0; i < 12; ++i) value += static_cast<float>(random() >> 8) * 0x1p-24f - 0.5f;
  }
  return x;
}

// The bounds are what ggml's own quantisers leave on the same values, and 3 % (llama.cpp 0c1e570,
// quantize_row_q4_K_ref and its siblings).
TEST(QuantTest, KQuantisersErrLittleMoreThanGgmls) {
  struct Case {
    DType type;
    float center;
    double ggml;
  };
  for (const Case& c : {Case{DType::kQ4_K, 0.0f, 0.069942}, Case{DType::kQ5_K, 0.0f, 0.035288},
                        Case{DType::kQ6_K, 0.0f, 0.017206}, Case{DType::kQ4_K, 2.0f, 0.032131},
                        Case{DType::kQ5_K, 2.0f, 0.015950}, Case{DType::kQ6_K, 2.0f, 0.013490}}) {
    EXPECT_LT(RelativeError(c.type, Bell(16384, c.center)), 1.03 * c.ggml)
        << ToString(c.type) << " around " << c.center;
  }
}

TEST(QuantTest, KQuantisersKeepConstantsAndZero) {
  for (const DType type : {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    EXPECT_LT(RelativeError(type, std::vector<float>(256, 1.5f)), 0.01) << ToString(type);
    EXPECT_LT(RelativeError(type, std::vector<float>(256, -1.5f)), 0.01) << ToString(type);
    std::vector<std::byte> stored(RowBytes(type, 256));
    const std::vector<float> zero(256, 0.0f);
    std::vector<float> back(256, 1.0f);
    QuantizeRow(type, zero.data(), stored.data(), 256);
    DequantizeRow(type, stored.data(), back.data(), 256);
    EXPECT_EQ(back, zero) << ToString(type);
  }
}

}  // namespace
}  // namespace tandem
