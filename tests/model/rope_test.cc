// Rotary scalings against their formulas; tests/run/architectures_test.cc holds them against
// transformers end to end.
#include "engine/model/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

namespace tandem {
namespace {

ModelConfig Config(uint32_t rope_dim, float theta) {
  ModelConfig config;
  config.rope_dim = config.head_dim = rope_dim;
  config.rope_theta = theta;
  return config;
}

TEST(RopeTest, PlainAndLinearNeedNoTable) {
  ModelConfig config = Config(64, 10000.0f);
  EXPECT_TRUE(RopeAnglesOf(config).frequencies.empty());
  EXPECT_EQ(RopeAnglesOf(config).magnitude, 1.0f);
  config.rope_scale = 4.0f;
  EXPECT_TRUE(RopeAnglesOf(config).frequencies.empty());
  config.rope_magnitude = 1.25f;
  EXPECT_EQ(RopeAnglesOf(config).magnitude, 1.25f);
}

TEST(RopeTest, FactorsDivide) {
  ModelConfig config = Config(8, 10000.0f);
  config.rope_factors = {1.0f, 2.0f, 4.0f, 8.0f};
  const RopeAngles angles = RopeAnglesOf(config);
  ASSERT_EQ(angles.frequencies.size(), 4u);
  EXPECT_DOUBLE_EQ(angles.frequencies[0], 1.0);
  EXPECT_DOUBLE_EQ(angles.frequencies[1], 0.1 / 2);
  EXPECT_DOUBLE_EQ(angles.frequencies[2], 0.01 / 4);
  EXPECT_DOUBLE_EQ(angles.frequencies[3], 0.001 / 8);
  config.rope_scale = 2.0f;
  EXPECT_DOUBLE_EQ(RopeAnglesOf(config).frequencies[3], 0.001 / 8 / 2);
}

TEST(RopeTest, YarnKeepsFastPairsAndSlowsDownSlowOnes) {
  ModelConfig config = Config(128, 10000.0f);
  config.yarn = YarnScaling{.factor = 4.0f, .original_context = 4096};
  const RopeAngles angles = RopeAnglesOf(config);
  ASSERT_EQ(angles.frequencies.size(), 64u);
  EXPECT_FLOAT_EQ(angles.magnitude, 1.1386294f);  // 1 + 0.1 ln 4
  // 128 ln(4096 / (2 pi 32)) / (2 ln 10000) = 20.9; with 1 in place of 32 it is 45.03.
  const auto share = [&](uint32_t i) {
    const double plain = std::pow(10000.0, -2.0 * i / 128);
    return (1.0 - angles.frequencies[i] / plain) / 0.75;
  };
  EXPECT_NEAR(share(0), 0.0, 1e-12);
  EXPECT_NEAR(share(20), 0.0, 1e-12);
  EXPECT_NEAR(share(33), (33.0 - 20) / (46 - 20), 1e-12);
  EXPECT_NEAR(share(46), 1.0, 1e-12);
  EXPECT_NEAR(share(63), 1.0, 1e-12);
}

TEST(RopeTest, YarnOfOneChangesNothing) {
  ModelConfig config = Config(32, 10000.0f);
  config.yarn = YarnScaling{.factor = 1.0f, .original_context = 64};
  const RopeAngles angles = RopeAnglesOf(config);
  EXPECT_EQ(angles.magnitude, 1.0f);
  for (uint32_t i = 0; i < 16; ++i) {
    EXPECT_DOUBLE_EQ(angles.frequencies[i], std::pow(10000.0, -2.0 * i / 32));
  }
}

TEST(RopeTest, Llama3FactorsFollowTheTurnsOfAPair) {
  // Llama 3.1's own numbers: d 128, theta 500000, factor 8, 1 and 4, 8192.
  const std::vector<float> factors = Llama3RopeFactors(Llama3Scaling{}, 128, 500000.0f);
  ASSERT_EQ(factors.size(), 64u);
  for (uint32_t i = 0; i < 64; ++i) {
    const double wavelength = 2 * std::numbers::pi * std::pow(500000.0, 2.0 * i / 128);
    if (wavelength < 8192.0 / 4) {
      EXPECT_EQ(factors[i], 1.0f) << i;
    } else if (wavelength > 8192.0) {
      EXPECT_EQ(factors[i], 8.0f) << i;
    } else {
      const double smooth = (8192 / wavelength - 1) / 3;
      EXPECT_NEAR(factors[i], 1 / ((1 - smooth) / 8 + smooth), 1e-5) << i;
    }
  }
  EXPECT_EQ(factors[28], 1.0f);
  EXPECT_EQ(factors[35], 8.0f);
}

TEST(RopeTest, NamesLlama3NumbersThatCannotBe) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Llama3ScalingProblem({}), "");
  for (const float factor : {nan, 0.0f, 0.5f, -8.0f, 1e9f}) {
    EXPECT_NE(Llama3ScalingProblem({.factor = factor}), "") << factor;
  }
  EXPECT_NE(Llama3ScalingProblem({.low_freq_factor = 4.0f}), "");
  EXPECT_NE(Llama3ScalingProblem({.low_freq_factor = 0.0f}), "");
  EXPECT_NE(Llama3ScalingProblem({.low_freq_factor = nan}), "");
  EXPECT_NE(Llama3ScalingProblem({.high_freq_factor = nan}), "");
  EXPECT_NE(Llama3ScalingProblem({.original_context = 0}), "");
}

}  // namespace
}  // namespace tandem
