// Arrivals and the latencies made of samples.
#include "engine/lab/workload.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(PoissonArrivalsTest, LandAtTheAskedRateInOrderAndRepeat) {
  std::vector<Nanos> a = PoissonArrivals(100, 4.0, 9);
  ASSERT_EQ(a.size(), 100u);
  EXPECT_NEAR(a.back().Seconds(), 25.0, 1e-6);
  for (size_t i = 1; i < a.size(); ++i) EXPECT_GE(a[i], a[i - 1]);
  EXPECT_EQ(a, PoissonArrivals(100, 4.0, 9));
  EXPECT_NE(a, PoissonArrivals(100, 4.0, 10));
}

TEST(SumSamplesTest, CountsFromTheScheduledTime) {
  RequestSample s;
  s.scheduled = Nanos{1000000};
  s.sent = Nanos{3000000};
  s.first_token = Nanos{11000000};
  s.token_times = {Nanos{11000000}, Nanos{13000000}, Nanos{17000000}};
  s.done = Nanos{17000000};
  s.output_tokens = 3;
  RequestSample failed;
  failed.failed = true;
  ServeResult r = SumSamples(WorkloadSpec{.loop = "open", .client = "in_process"}, {s, failed});
  EXPECT_EQ(r.completed, 1u);
  EXPECT_EQ(r.failed, 1u);
  EXPECT_DOUBLE_EQ(r.ttft_ms.p50, 10);
  EXPECT_DOUBLE_EQ(r.queue_ms.p50, 2);
  EXPECT_DOUBLE_EQ(r.tpot_ms.p50, 3);
  EXPECT_DOUBLE_EQ(r.e2e_ms.p50, 16);
  EXPECT_EQ(r.itl_ms.n, 2u);
  EXPECT_NEAR(r.output_tokens_per_s, 3 / 0.017, 1e-6);
}

}  // namespace
}  // namespace tandem
