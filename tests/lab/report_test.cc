// The report: self-contained, fidelity on every figure, crossings where they are.
#include "engine/lab/report.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/lab/report_parts.h"
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

TEST(ReportTest, WhereAStepGoesIsTheMedianRepetition) {
  ReportInput input;
  for (int64_t ms : {9, 2, 1, 3}) {
    Record r = PhaseRecord("small", 100000000, "x8", 0.5, Fidelity::kEmulated);
    r.repetition = static_cast<uint32_t>(input.records.size());
    r.decode->time = Nanos{ms * 10000000};
    r.decode->attribution[0] = {DeviceId{0}, r.decode->time, Nanos{}, Nanos{}, Nanos{}, Nanos{}};
    input.records.push_back(r);
  }
  std::vector<const Record*> records;
  for (const Record& r : input.records) records.push_back(&r);
  const std::vector<ReportCell> cells = CellsOf(records);
  ASSERT_EQ(cells.size(), 1u);
  EXPECT_EQ(cells[0].MedianRepetition(&Record::decode)->time, Nanos{20000000});
  EXPECT_EQ(cells[0].MedianRepetition(&Record::prefill), nullptr);
  const std::string html = RenderReport(input);
  EXPECT_NE(html.find("compute: 2 ms"), std::string::npos);
  EXPECT_EQ(html.find("compute: 9 ms"), std::string::npos) << "the first repetition";
  EXPECT_NE(html.find("in the repetition whose step time is the median"), std::string::npos);
}

TEST(ReportTest, NumbersAreReadableAndColumnsHaveNamesOfTheirOwn) {
  ReportInput input;
  Record r = PhaseRecord("small", 100000000, "x8", 0.5, Fidelity::kEmulated);
  r.cell.emplace_back("sequences", "4");
  r.decode->tokens_per_s = 50737.4;
  r.predicted.decode_tokens_per_s = 61234.5;
  input.records = {r};
  const std::string html = RenderReport(input);
  for (const char* shown : {"<td>50737</td>", "<td>61234</td>", "small x8 tensor_split sequences=4",
                            "<th>prefill predicted</th>", "<th>decode predicted</th>"}) {
    EXPECT_NE(html.find(shown), std::string::npos) << shown;
  }
  EXPECT_EQ(html.find("e+0"), std::string::npos);
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
