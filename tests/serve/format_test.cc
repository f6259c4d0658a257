// What gets out: logprobs, metrics text, the page's policy.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/serve/api_error.h"
#include "engine/serve/assets.h"
#include "engine/serve/logprobs.h"
#include "engine/serve/page_policy.h"
#include "engine/serve/prometheus_text.h"
#include "tests/serve/fake_engine.h"

namespace tandem {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

TEST(LogprobsTest, AreLogSoftmaxWithTiesToTheLowestId) {
  std::vector<float> logits = {1, 3, 3, -INFINITY};
  TokenLogprob got = LogprobOf(logits, 0, 3);
  double sum = std::exp(1) + 2 * std::exp(3);
  EXPECT_NEAR(got.logprob, 1 - std::log(sum), 1e-5);
  ASSERT_EQ(got.top.size(), 3u);
  EXPECT_EQ(got.top[0].first, 1);
  EXPECT_EQ(got.top[1].first, 2);
  EXPECT_EQ(got.top[2].first, 0);
  EXPECT_NEAR(got.top[0].second, 3 - std::log(sum), 1e-5);
  EXPECT_EQ(LogprobOf(logits, 0, 100).top.size(), 4u);
}

TEST(LogprobsTest, StayFiniteForLargeLogits) {
  std::vector<float> logits = {1e4f, -1e4f};
  EXPECT_EQ(LogprobOf(logits, 0, 0).logprob, 0);
  EXPECT_EQ(LogprobOf(logits, 1, 0).logprob, -2e4f);
}

TEST(LogprobsTest, SpellPartsOfCodePointsAsBytes) {
  testing::ByteTokenizer tokenizer;
  json whole = ChatLogprob(&tokenizer, {.id = 'a', .logprob = -1, .top = {{0xC3, -2}}});
  EXPECT_EQ(whole["token"], "a");
  EXPECT_EQ(whole["bytes"], json::array({97}));
  EXPECT_EQ(whole["top_logprobs"][0]["token"], "bytes:\\xc3");
  EXPECT_EQ(whole["top_logprobs"][0]["bytes"], json::array({0xC3}));
}

TEST(LogprobsTest, SayNothingFalse) {
  testing::ByteTokenizer tokenizer;
  EXPECT_EQ(ChatLogprob(&tokenizer, {.id = 'a', .logprob = -INFINITY})["logprob"], -9999.0);
  EXPECT_THROW(ChatLogprob(&tokenizer, {.id = 'a', .logprob = NAN}), ApiError);
}

TEST(LogprobsTest, CountOffsetsInCodePointsAcrossTakes) {
  testing::ByteTokenizer tokenizer;
  CompletionLogprobs logprobs(&tokenizer);
  logprobs.AddUnscored('a');
  logprobs.Add({.id = 0xC3, .logprob = -1}, false);
  json first = logprobs.Take();
  logprobs.Add({.id = 0xA9, .logprob = -1}, true);
  logprobs.Add({.id = 'b', .logprob = -1, .top = {{'b', -1}}}, true);
  json second = logprobs.Take();
  EXPECT_EQ(first["text_offset"], json::array({0, 1}));
  EXPECT_TRUE(first["token_logprobs"][0].is_null());
  EXPECT_TRUE(first["top_logprobs"][1].is_null());
  EXPECT_EQ(second["text_offset"], json::array({2, 2}));
  EXPECT_EQ(second["top_logprobs"][1]["b"], -1);
}

TEST(PrometheusTextTest, WritesFamiliesAndEscapesLabels) {
  PrometheusText text;
  text.Family("a_total", "counter", "Help.");
  text.Sample({{"x", "q\"b\\n\n"}}, 12);
  text.Sample({}, 0.5);
  EXPECT_EQ(text.text(),
            "# HELP a_total Help.\n# TYPE a_total counter\na_total{x=\"q\\\"b\\\\n\\n\"} 12\n"
            "a_total 0.5\n");
}

TEST(PrometheusTextTest, HistogramsAreCumulative) {
  Histogram histogram({0.1, 1});
  for (double v : {0.1, 0.5, 5.0}) histogram.Observe(v);
  PrometheusText text;
  text.Family("h", "histogram", "H.");
  text.Samples(histogram);
  EXPECT_THAT(text.text(), HasSubstr("h_bucket{le=\"0.1\"} 1\nh_bucket{le=\"1\"} 2\n"
                                     "h_bucket{le=\"+Inf\"} 3\nh_sum 5.6\nh_count 3\n"));
}

TEST(PagePolicyTest, AllowsOnlyThePagesOwnScript) {
  // echo -n 'alert(1)' | openssl dgst -sha256 -binary | base64
  std::string policy = PagePolicy("<html><script>alert(1)</script></html>");
  EXPECT_THAT(policy,
              HasSubstr("script-src 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"));
  EXPECT_THAT(policy, HasSubstr("style-src 'none'"));
  EXPECT_THAT(policy, HasSubstr("default-src 'none'"));
}

TEST(PageTest, CarriesNothingThePolicyWouldBlock) {
  std::string page(PageHtml());
  for (const char* banned : {"http://", "https://", "src=", " style=\"", "onclick", "@import"}) {
    EXPECT_EQ(page.find(banned), std::string::npos) << banned;
  }
  EXPECT_NE(page.find("viewport"), std::string::npos);
  EXPECT_NE(page.find("id=\"badge\""), std::string::npos);
}

}  // namespace
}  // namespace tandem
