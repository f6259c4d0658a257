// The report: self-contained, fidelity on every figure, crossings where they are.
#include "engine/lab/report.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/lab/report_svg.h"

namespace tandem {
namespace {

Record PhaseRecord(const std::string& model, uint64_t parameters, const std::string& link,
                   double share, Fidelity fidelity) {
  Record r;
  r.scenario = "s";
  r.question = "When does <the link> dominate?";
  r.cell = {{"model", model}, {"link", link}, {"plugin", "tensor_split"}};
  r.fidelity = fidelity;
  r.model.name = model;
  r.model.parameters = parameters;
  r.link = link;
  r.plugin = "tensor_split";
  r.machine = {{"cpu", "test"}, {"cores", 2}};
  PhaseResult p;
  p.tokens = 10;
  p.steps = 10;
  p.time = Nanos{1000000};
  p.tokens_per_s = 1e4;
  p.link_share = share;
  auto exposed = static_cast<int64_t>(1e6 * share);
  p.attribution = {
      {DeviceId{0}, Nanos{1000000 - exposed}, Nanos{}, Nanos{exposed}, Nanos{}, Nanos{}}};
  p.step_times.assign(10, Nanos{100000});
  r.decode = p;
  return r;
}

std::string Render(Fidelity fidelity) {
  ReportInput input;
  input.title = "rig";
  input.records = {PhaseRecord("small", 100000000, "x8", 0.8, fidelity),
                   PhaseRecord("large", 1000000000, "x8", 0.2, fidelity),
                   PhaseRecord("small", 100000000, "nvlink", 0.3, fidelity),
                   PhaseRecord("large", 1000000000, "nvlink", 0.1, fidelity)};
  return RenderReport(input);
}

TEST(CrossingSizeTest, InterpolatesInLogSize) {
  std::optional<double> at = CrossingSize({{1e8, 0.75}, {1e10, 0.25}}, 0.5);
  ASSERT_TRUE(at.has_value());
  EXPECT_NEAR(*at, 1e9, 1e9 * 1e-9);
  EXPECT_FALSE(CrossingSize({{1e8, 0.4}, {1e10, 0.2}}, 0.5).has_value());
}

TEST(ReportTest, ShowsTheCrossoverInWords) {
  std::string html = Render(Fidelity::kEmulated);
  EXPECT_NE(html.find("x8</b>: the link takes more than half of the decode step below"),
            std::string::npos);
  EXPECT_NE(html.find("nvlink</b>: the link never takes half"), std::string::npos);
}

TEST(ReportTest, CannotShowEmulatedFiguresAsMeasured) {
  std::string emulated = Render(Fidelity::kEmulated);
  EXPECT_NE(emulated.find("EMULATED figures"), std::string::npos);
  EXPECT_EQ(emulated.find("MEASURED figures"), std::string::npos);
  // Every figure carries the word.
  size_t figures = 0, badges = 0;
  for (size_t at = emulated.find("<figure>"); at != std::string::npos;
       at = emulated.find("<figure>", at + 1))
    ++figures;
  for (size_t at = emulated.find("badge emulated"); at != std::string::npos;
       at = emulated.find("badge emulated", at + 1))
    ++badges;
  EXPECT_GT(figures, 0u);
  EXPECT_EQ(figures, badges);
  EXPECT_NE(Render(Fidelity::kPredicted).find("PREDICTED figures"), std::string::npos);
}

TEST(ReportTest, IsSelfContainedAndEscapes) {
  std::string html = Render(Fidelity::kEmulated);
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("http://"), std::string::npos);
  EXPECT_EQ(html.find("https://"), std::string::npos);
  EXPECT_NE(html.find("&lt;the link&gt;"), std::string::npos);
}

}  // namespace
}  // namespace tandem
