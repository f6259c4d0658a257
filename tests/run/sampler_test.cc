// Greedy, penalties, truncations and draws on rows small enough to work out by hand.
#include "engine/run/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "engine/base/error.h"

namespace tandem {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int32_t Choose(const std::vector<float>& logits, const SamplingParams& params, uint32_t index = 0,
               std::vector<int32_t> context = {}, uint32_t n_prompt = 0) {
  Sampler sampler(static_cast<uint32_t>(logits.size()));
  return sampler.Choose(logits.data(), params, context, n_prompt, index, -1).id;
}

// How often each token is drawn in 4000 draws.
std::map<int32_t, int> Draws(const std::vector<float>& logits, const SamplingParams& params) {
  Sampler sampler(static_cast<uint32_t>(logits.size()));
  std::map<int32_t, int> counts;
  for (uint32_t i = 0; i < 4000; ++i) {
    ++counts[sampler.Choose(logits.data(), params, {}, 0, i, -1).id];
  }
  return counts;
}

SamplingParams Hot(double temperature = 1.0) {
  SamplingParams params;
  params.temperature = temperature;
  params.seed = 42;
  return params;
}

// What a device gives of a row.
std::vector<TopEntry> EntriesOf(const std::vector<float>& logits, uint32_t k) {
  std::vector<TopEntry> entries(k);
  const auto width = static_cast<uint32_t>(logits.size());
  MakeRefOps(ActivationType::kF32)->TopK(logits.data(), 1, width, k, nullptr, entries.data());
  return entries;
}

TEST(SamplerTest, TheLargestAloneGiveTheSameIds) {
  std::vector<float> logits(100);
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>(i * 37 % 23) / 4;  // with many that are equal
    if (i % 5 == 0) logits[i] = -kInfinity;
  }
  // All but a few banned: fewer tokens than top_k.
  std::vector<float> few(100, -kInfinity);
  for (size_t i : {70u, 3u, 50u}) few[i] = static_cast<float>(i) / 50;
  Sampler sampler(100);
  for (const auto& row : {logits, few}) {
    for (uint32_t top_k : {0u, 1u, 2u, 3u, 10u, 63u}) {
      for (double top_p : {1.0, 0.7}) {
        for (double min_p : {0.0, 0.2}) {
          SamplingParams params = Hot(top_k == 0 ? 0.0 : 0.8);
          params.top_k = top_k;
          params.top_p = top_p;
          params.min_p = min_p;
          const uint32_t k = EntriesToChoose(params, -1);
          ASSERT_EQ(k, top_k + 1);
          const std::vector<TopEntry> entries = EntriesOf(row, k);
          for (uint32_t index = 0; index < 50; ++index) {
            ASSERT_EQ(sampler.ChooseAmong(entries, params, index).id,
                      sampler.Choose(row.data(), params, {}, 0, index, -1).id)
                << top_k << " " << top_p << " " << min_p << " draw " << index;
          }
        }
      }
    }
  }
}

TEST(SamplerTest, SomeChoicesNeedAllLogits) {
  SamplingParams params = Hot();
  EXPECT_EQ(EntriesToChoose(params, -1), 0u) << "a draw among all tokens";
  params.top_k = kMostTopK;
  EXPECT_EQ(EntriesToChoose(params, -1), 0u);
  params.top_k = 5;
  EXPECT_EQ(EntriesToChoose(params, 0), 0u) << "a log probability";
  params.logit_bias = {{3, -1.0f}};
  EXPECT_EQ(EntriesToChoose(params, -1), 0u);
  SamplingParams penalty;
  penalty.repetition_penalty = 1.1;
  EXPECT_EQ(EntriesToChoose(penalty, -1), 0u);
  EXPECT_EQ(EntriesToChoose({}, -1), 1u);
}

TEST(SamplerTest, RefusesEntriesOfRowsWithoutAnAnswer) {
  Sampler sampler(4);
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
    const std::vector<TopEntry> entries = EntriesOf({1, bad, 2, 3}, 1);
    EXPECT_THROW(sampler.ChooseAmong(entries, {}, 0), Error) << bad;
  }
}

TEST(SamplerTest, GreedyTakesTheLowestOfEquals) {
  EXPECT_EQ(Choose({1, 3, 3, 2}, {}), 1);
  EXPECT_EQ(Choose({5, 5, 5, 5}, {}), 0);
  EXPECT_EQ(Choose({-kInfinity, -2, -1}, {}), 2);
}

TEST(SamplerTest, FindsTheLargestWhereverItIs) {
  for (uint32_t n : {1u, 15u, 16u, 17u, 33u, 1000u}) {
    for (uint32_t at = 0; at < n; at += n / 7 + 1) {
      std::vector<float> logits(n, -3.0f);
      logits[at] = -1.0f;
      EXPECT_EQ(FindLargest(logits.data(), n).index, at) << n;
      logits[at] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_EQ(FindLargest(logits.data(), n).index, n) << "a NaN at " << at << " of " << n;
    }
  }
}

TEST(SamplerTest, RefusesRowsWithoutAnAnswer) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(Choose({1, nan, 2}, {}), Error);
  EXPECT_THROW(Choose({-kInfinity, -kInfinity}, {}), Error);
  EXPECT_THROW(Choose({1, kInfinity}, {}), Error);
  SamplingParams ban;
  ban.logit_bias = {{0, -kInfinity}, {1, -kInfinity}};
  EXPECT_THROW(Choose({1, 2}, ban), Error);
}

TEST(SamplerTest, DrawsFollowTheSoftmax) {
  const std::vector<float> logits{std::log(6.0f), std::log(3.0f), std::log(1.0f)};
  std::map<int32_t, int> counts = Draws(logits, Hot());
  // Three standard deviations of a binomial over 4000.
  EXPECT_NEAR(counts[0], 2400, 3 * std::sqrt(4000 * 0.6 * 0.4));
  EXPECT_NEAR(counts[1], 1200, 3 * std::sqrt(4000 * 0.3 * 0.7));
  EXPECT_NEAR(counts[2], 400, 3 * std::sqrt(4000 * 0.1 * 0.9));
}

TEST(SamplerTest, TemperatureSharpens) {
  const std::vector<float> logits{std::log(2.0f), 0.0f};
  std::map<int32_t, int> counts = Draws(logits, Hot(0.5));  // weights 4 and 1
  EXPECT_NEAR(counts[0], 3200, 3 * std::sqrt(4000 * 0.8 * 0.2));
  EXPECT_EQ(Choose({1, 1.001f, 0.5f}, Hot(1e-30)), 1) << "all but greedy";
  EXPECT_EQ(Choose({1, 3, 2}, Hot(0)), 1);
}

TEST(SamplerTest, TruncationsKeepWhatTheySay) {
  const std::vector<float> logits{std::log(1.0f), std::log(4.0f), std::log(3.0f), std::log(2.0f)};
  SamplingParams params = Hot();
  params.top_k = 2;
  std::map<int32_t, int> counts = Draws(logits, params);
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_NEAR(counts[1], 4000 * 4 / 7, 100);

  params = Hot();
  params.top_p = 0.65;  // 0.4 + 0.3 reach it
  counts = Draws(logits, params);
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_TRUE(counts.contains(1) && counts.contains(2));
  params.top_p = 0;  // one token is always kept
  EXPECT_EQ(Draws(logits, params).size(), 1u);

  params = Hot();
  params.min_p = 0.6;  // of the best's 0.4: at least 0.24
  counts = Draws(logits, params);
  EXPECT_EQ(counts.size(), 2u);
  params.min_p = 1;
  EXPECT_EQ(Draws(logits, params).size(), 1u);
}

TEST(SamplerTest, NucleusIsRightInALargeVocabulary) {
  // 1000 equal tokens: half the mass is 500 of them, the ones with the lowest ids.
  const std::vector<float> logits(1000, 0.25f);
  SamplingParams params = Hot();
  params.top_p = 0.5;
  for (const auto& [id, count] : Draws(logits, params)) EXPECT_LT(id, 500);
}

TEST(SamplerTest, DrawsDependOnSeedAndIndexAlone) {
  std::vector<float> logits(100);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 7);
  SamplingParams other = Hot();
  other.seed = 43;
  int same_seed = 0;
  int other_seed = 0;
  for (uint32_t i = 0; i < 50; ++i) {
    const int32_t a = Choose(logits, Hot(), i);
    Sampler used(100);
    for (uint32_t k = 0; k < i; ++k) used.Choose(logits.data(), Hot(), {}, 0, 7 * k, -1);
    same_seed += a == used.Choose(logits.data(), Hot(), {}, 0, i, -1).id;
    other_seed += a == Choose(logits, other, i);
  }
  EXPECT_EQ(same_seed, 50);
  EXPECT_LT(other_seed, 25);
}

TEST(SamplerTest, UniformDrawsFillTheUnitInterval) {
  double sum = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    const double u = UniformDraw(9, i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 3 / std::sqrt(12.0 * 10000));
}

TEST(SamplerTest, PenaltiesActOnWhatTheySay) {
  SamplingParams params;
  params.repetition_penalty = 2.0;  // 4 -> 2 and -1 -> -2, prompt included
  EXPECT_EQ(Choose({4, 3, -1}, params, 0, {0, 0}, 2), 1);
  EXPECT_EQ(Choose({-1, -1.5f}, params, 0, {0}, 1), 1);
  params = {};
  params.presence_penalty = 1.5;  // generated tokens alone, however often
  EXPECT_EQ(Choose({4, 3, 0}, params, 0, {0, 0, 0}, 3), 0) << "the prompt is not penalised";
  EXPECT_EQ(Choose({4, 3, 0}, params, 0, {5 % 3, 0, 0}, 1), 1);
  params = {};
  params.frequency_penalty = 0.6;
  EXPECT_EQ(Choose({4, 3, 0}, params, 0, {0}, 0), 0);
  EXPECT_EQ(Choose({4, 3, 0}, params, 0, {0, 0}, 0), 1);
  params = {};
  params.logit_bias = {{2, 10.0f}, {0, -kInfinity}};
  EXPECT_EQ(Choose({4, 3, 0}, params), 2);
}

TEST(SamplerTest, PenaltiesLeaveNothingBehind) {
  Sampler sampler(3);
  SamplingParams penalised;
  penalised.frequency_penalty = 1;
  penalised.repetition_penalty = 1.5;
  const std::vector<float> logits{4, 3, 0};
  const std::vector<int32_t> context{0, 0, 0, 1};
  const int32_t first = sampler.Choose(logits.data(), penalised, context, 1, 0, -1).id;
  EXPECT_EQ(sampler.Choose(logits.data(), penalised, context, 1, 0, -1).id, first);
  EXPECT_EQ(sampler.Choose(logits.data(), {}, {}, 0, 0, -1).id, 0);
}

TEST(SamplerTest, LogProbsAreOfThePlainDistribution) {
  const std::vector<float> logits{std::log(1.0f), std::log(6.0f), std::log(3.0f)};
  SamplingParams params;
  params.temperature = 0.1;
  params.logit_bias = {{0, 100.0f}};
  Sampler sampler(3);
  const Choice choice = sampler.Choose(logits.data(), params, {}, 0, 0, 2);
  EXPECT_EQ(choice.id, 0);
  EXPECT_NEAR(choice.logprob, std::log(0.1), 1e-6);
  ASSERT_EQ(choice.top.size(), 2u);
  EXPECT_EQ(choice.top[0].first, 1);
  EXPECT_NEAR(choice.top[0].second, std::log(0.6), 1e-6);
  EXPECT_EQ(choice.top[1].first, 2);
}

TEST(SamplerTest, RefusesParametersOutOfRange) {
  const auto refused = [](const auto& change) {
    SamplingParams params;
    change(params);
    try {
      ValidateSampling(params, 10);
    } catch (const Error& error) {
      return error.code() == ErrorCode::kInvalidArgument;
    }
    return false;
  };
  EXPECT_FALSE(refused([](SamplingParams&) {}));
  EXPECT_TRUE(refused([](SamplingParams& p) { p.temperature = -1; }));
  EXPECT_TRUE(refused([](SamplingParams& p) { p.temperature = kInfinity; }));
  EXPECT_TRUE(refused([](SamplingParams& p) { p.top_p = 1.1; }));
  EXPECT_TRUE(refused([](SamplingParams& p) { p.min_p = -0.1; }));
  EXPECT_TRUE(refused([](SamplingParams& p) { p.repetition_penalty = 0; }));
  EXPECT_TRUE(refused([](SamplingParams& p) { p.presence_penalty = kInfinity; }));
  EXPECT_TRUE(refused([](SamplingParams& p) { p.logit_bias = {{10, 1.0f}}; }));
  EXPECT_TRUE(refused([](SamplingParams& p) { p.logit_bias = {{1, kInfinity}}; }));
}

}  // namespace
}  // namespace tandem
