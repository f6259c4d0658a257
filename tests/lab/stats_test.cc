// Percentiles, medians, intervals.
#include "engine/lab/stats.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(PercentileTest, InterpolatesLinearly) {
  EXPECT_DOUBLE_EQ(Percentile({1, 2, 3, 4}, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(Percentile({4, 1, 3, 2}, 0.0), 1);
  EXPECT_DOUBLE_EQ(Percentile({4, 1, 3, 2}, 1.0), 4);
  EXPECT_DOUBLE_EQ(Percentile({10, 20}, 0.9), 19);
  EXPECT_DOUBLE_EQ(Percentile({}, 0.5), 0);
}

TEST(MedianIntervalTest, HoldsTheMedianAndStaysInRange) {
  std::vector<double> values{5, 1, 4, 2, 3, 9, 7};
  Interval interval = MedianInterval(values);
  EXPECT_LE(interval.low, Median(values));
  EXPECT_GE(interval.high, Median(values));
  EXPECT_GE(interval.low, 1);
  EXPECT_LE(interval.high, 9);
}

TEST(MedianIntervalTest, IsTheRangeOfTwo) {
  Interval interval = MedianInterval({3, 8});
  EXPECT_DOUBLE_EQ(interval.low, 3);
  EXPECT_DOUBLE_EQ(interval.high, 8);
}

}  // namespace
}  // namespace tandem
