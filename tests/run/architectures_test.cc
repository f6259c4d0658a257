// Every architecture, rotary scaling and weight type against transformers: tiny seeded models whose
// logits tools/make-architecture-golden has written down (tests/golden/architectures.json).
//
// The reference rounds keys and values to f16 as tandem's cache does, so what is left is the order
// of sums, and now and then a key or value that falls to the other side when it is rounded.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "engine/model/gguf_writer.h"
#include "tests/run/engine_fixture.h"
#include "tests/run/golden_architectures.h"

namespace tandem {
namespace {

using nlohmann::json;

// Every case, the plain ones and those of a weight type.
const std::vector<json>& Cases() {
  static const std::vector<json> kCases = [] {
    std::vector<json> cases = testing::ArchitectureCases();
    for (json& entry : testing::TypedArchitectureCases()) cases.push_back(std::move(entry));
    return cases;
  }();
  return kCases;
}

// The largest difference from the logits that the reference keeps.
double WorstDifference(const json& entry, const std::vector<float>& logits, size_t vocab) {
  double worst = 0;
  for (const json& sample : entry.at("samples")) {
    const size_t row = sample.at("position").get<size_t>() * vocab;
    for (size_t i = 0; i < entry.at("columns").size(); ++i) {
      const size_t column = entry.at("columns").at(i);
      const double want = sample.at("logits").at(i);
      const double error = std::fabs(logits.at(row + column) - want);
      worst = error <= worst ? worst : error;
    }
  }
  return worst;
}

std::vector<float> Logits(const std::shared_ptr<const Model>& model, const json& ids,
                          const std::string& tier) {
  EngineOptions options = testing::TinyOptions(model, testing::SinglePlan(model->blocks()));
  options.ops = {.activations = ActivationType::kF32, .tier = tier};
  const auto got = testing::RunOne(
      options, testing::MakeRequest(ids.get<std::vector<int32_t>>(), 0, /*prompt_logits=*/true));
  EXPECT_EQ(got->reason, FinishReason::kLength) << got->error;
  return got->prompt_logits;
}

// A sum of n terms in another order moves by about sqrt(n) * 2^-24 of its norm, four sums a layer;
// 8 stands for what norms and softmax amplify. A key or value near the middle of two f16 numbers
// may round the other way, by twice as much as it did: a few of thousands, so they move logits by
// no more than rounding all of them did.
double Tolerance(const json& entry, const ModelConfig& config, const std::vector<float>& logits) {
  double largest = 0;
  for (float x : logits) largest = std::max<double>(largest, std::fabs(x));
  const double terms = std::max({config.ffn, config.q_dim(), config.hidden});
  const double sums = 8 * std::sqrt(terms) * 0x1p-24 * 4 * config.n_layers * largest;
  return entry.at("kv_effect").get<double>() + sums + 5e-6;  // the file has five digits
}

class ArchitecturesTest : public ::testing::TestWithParam<size_t> {};

TEST_P(ArchitecturesTest, GivesTheLogitsOfTheReference) {
  const json& entry = Cases().at(GetParam());
  const auto model = MakeSyntheticModel(ParseSyntheticSpec(entry.at("spec").get<std::string>()));
  const size_t vocab = model->config().vocab;
  for (const char* tier : {"ref", "auto"}) {
    const std::vector<float> logits = Logits(model, entry.at("ids"), tier);
    ASSERT_EQ(logits.size(), entry.at("ids").size() * vocab);
    const double tolerance = Tolerance(entry, model->config(), logits);
    const double worst = WorstDifference(entry, logits, vocab);
    EXPECT_LE(worst, tolerance) << tier;
    RecordProperty(std::string("worst_of_tolerance_") + tier, std::to_string(worst / tolerance));
    for (size_t p = 0; p < entry.at("top").size(); ++p) {
      const float* row = logits.data() + p * vocab;
      const float best = *std::max_element(row, row + vocab);
      EXPECT_GE(row[entry.at("top").at(p).get<size_t>()], best - 2 * tolerance)
          << tier << " position " << p;
    }
  }
}

TEST_P(ArchitecturesTest, ReadsBackFromAFileToTheSameBits) {
  const json& entry = Cases().at(GetParam());
  const SyntheticSpec spec = ParseSyntheticSpec(entry.at("spec").get<std::string>());
  const std::string path = ::testing::TempDir() + "tandem_architecture_" +
                           std::to_string(::getpid()) + "_" + std::to_string(GetParam());
  WriteSyntheticGguf(spec, path);
  const auto read = LoadGguf(path);
  std::filesystem::remove(path);
  const auto made = MakeSyntheticModel(spec);
  EXPECT_EQ(read->weight_bytes(), made->weight_bytes());
  EXPECT_TRUE(testing::SameBits(Logits(read, entry.at("ids"), "auto"),
                                Logits(made, entry.at("ids"), "auto")));
}

// The test can fail: what sets two of the cases apart moves logits by far more than the tolerance.
TEST(ArchitecturesMutantTest, SmallErrorsShow) {
  const struct {
    const char* name;
    const char* from;
    const char* to;
  } mutants[] = {
      {"mistral_window", "window=7", "window=8"},
      {"llama_yarn", "orig=32", "orig=100"},
      {"llama_yarn", "seed=15", "seed=15,attn=1.01"},
      {"llama3", "low=1,high=4", "low=1,high=5"},
      {"llama_linear", "scale=4", "scale=3.9"},
      {"qwen2", "arch=qwen2", "arch=qwen2,interleaved=1"},
      {"llama_linear_q6_k", "scale=4", "scale=4.04"},
      {"qwen2_q4_k", "type=q4_k", "type=q5_k"},
      {"qwen3_q5_1", "embed=q5_1", "embed=q8_0"},
  };
  for (const auto& mutant : mutants) {
    size_t found = 0;
    for (const json& entry : Cases()) {
      if (entry.at("name") != mutant.name) continue;
      ++found;
      std::string spec = entry.at("spec");
      spec.replace(spec.find(mutant.from), std::string(mutant.from).size(), mutant.to);
      const auto model = MakeSyntheticModel(ParseSyntheticSpec(spec));
      const std::vector<float> logits = Logits(model, entry.at("ids"), "auto");
      EXPECT_GT(WorstDifference(entry, logits, model->config().vocab),
                2 * Tolerance(entry, model->config(), logits))
          << mutant.name << " with " << mutant.to;
    }
    EXPECT_EQ(found, 1u) << mutant.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, ArchitecturesTest, ::testing::Range<size_t>(0, Cases().size()),
                         [](const auto& info) {
                           return Cases().at(info.param).at("name").template get<std::string>();
                         });

}  // namespace
}  // namespace tandem
