// Surveys of files that tandem runs, of files that it does not, and of weights that are no numbers.
#include "engine/model/survey.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "engine/base/error.h"
#include "engine/model/verify.h"
#include "tests/model/gguf_builder.h"
#include "tests/model/huggingface/safetensors_builder.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

class SurveyTest : public testing::Test {
 protected:
  SurveyTest() : folder_(testing::TempDir() + fmt::format("tandem_survey_{}", ::getpid())) {
    fs::create_directories(folder_);
  }
  ~SurveyTest() override { fs::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << content;
    return folder_ + "/" + name;
  }
  Survey Of(const GgufBuilder& file) const { return SurveyModel(Write("m.gguf", file.Build())); }

  std::string folder_;
};

bool Lacks(const Survey& survey, const std::string& text) {
  for (const std::string& why : survey.lacks) {
    if (why.find(text) != std::string::npos) {
      return true;
    }
  }
  return false;
}

VerifyReport Verify(const Survey& survey) {
  uint64_t last = 0;
  const VerifyReport report = VerifyWeights(survey.tensors, [&](uint64_t done, uint64_t all) {
    EXPECT_LE(done, all);
    last = done;
  });
  EXPECT_EQ(last, report.checked_bytes);
  return report;
}

TEST_F(SurveyTest, SaysWhatIsInAFileThatRuns) {
  const Survey survey = Of(TinyLlamaFileWithVocabulary());
  ASSERT_NE(survey.model, nullptr);
  EXPECT_TRUE(survey.lacks.empty());
  const nlohmann::json about = DescribeSurvey(survey);
  EXPECT_EQ(about["architecture"], "llama");
  EXPECT_EQ(about["supported"], true);
  EXPECT_EQ(about["facts"]["embedding_length"], 64);
  EXPECT_EQ(about["tokenizer"]["pre"], "smollm");
  EXPECT_EQ(about["tokenizer"]["chat_template"], true);
  EXPECT_EQ(about["tensor_types"][0]["type"], "Q4_0");
  EXPECT_EQ(about["tensor_types"][0]["count"], 8);
  EXPECT_EQ(about["model"]["weight_bytes"], survey.model->weight_bytes().value);
  EXPECT_TRUE(Verify(survey).ok());
}

TEST_F(SurveyTest, GoesOnWhereLoadingStops) {
  GgufBuilder file = TinyLlamaFileWithVocabulary();
  file.SetString("general.architecture", "mamba");
  file.SetU32("mamba.block_count", 7);
  file.tensor("blk.0.attn_q.weight").ggml_type = 17;  // IQ2_XS
  file.SetString("tokenizer.chat_template", "{% import 'x' as y %}");
  const Survey survey = Of(file);
  EXPECT_EQ(survey.model, nullptr);
  EXPECT_EQ(survey.architecture, "mamba");
  EXPECT_EQ(survey.facts["block_count"], 7);
  EXPECT_TRUE(Lacks(survey, "architecture 'mamba'"));
  EXPECT_TRUE(Lacks(survey, "weight type IQ2_XS: 1 tensors ('blk.0.attn_q.weight' the first)"));
  EXPECT_TRUE(Lacks(survey, "chat template"));
  const VerifyReport report = Verify(survey);
  EXPECT_EQ(report.skipped, std::vector<std::string>{"blk.0.attn_q.weight"});
  EXPECT_EQ(report.checked, survey.tensors.size() - 1);
}

TEST_F(SurveyTest, NamesTensorsThatLieOutsideTheFile) {
  GgufBuilder file = TinyLlamaFile();
  file.tensor("output_norm.weight").offset = 1u << 20;
  const Survey survey = Of(file);
  EXPECT_EQ(survey.model, nullptr);
  EXPECT_TRUE(Lacks(survey, "output_norm.weight"));
}

TEST_F(SurveyTest, RefusesWhatIsNoModel) {
  EXPECT_THROW(SurveyModel(folder_ + "/none.gguf"), Error);
  EXPECT_THROW(SurveyModel(Write("x.gguf", "hello world")), Error);
  EXPECT_THROW(SurveyModel(folder_), Error);
}

TEST_F(SurveyTest, ReadsFoldersThatDoNotRun) {
  FolderBuilder folder = TinyLlamaFolder();
  folder.config["architectures"] = {"OtherForCausalLM"};
  SafetensorsBuilder file = TinyLlamaTensors(DType::kBF16);
  file.Add("experts", "BF16", {2, 3, 4}, std::string(48, '\1'));
  file.Add("scales", "F8_E8M0", {4}, "abcd");
  Write("config.json", folder.config.dump());
  Write("model.safetensors", file.Build());
  const Survey survey = SurveyModel(folder_);
  EXPECT_EQ(survey.model, nullptr);
  EXPECT_EQ(survey.architecture, "OtherForCausalLM");
  EXPECT_EQ(survey.facts["hidden_size"], 16);
  EXPECT_TRUE(Lacks(survey, "'OtherForCausalLM'"));
  EXPECT_TRUE(Lacks(survey, "weight type F8_E8M0"));
  EXPECT_EQ(Verify(survey).skipped, std::vector<std::string>{"scales"});
}

TEST_F(SurveyTest, FindsNumbersThatAreNoneInEveryType) {
  for (const DType type :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1}) {
    for (const bool infinite : {false, true}) {
      GgufBuilder file = TinyLlamaFile(type);
      std::string& data = file.tensor("blk.0.ffn_up.weight").data;
      // The scale of a block, or an element, in row 3 (of 64); f16 unless the type says else.
      const size_t at =
          3 * RowBytes(type, 64) + 32 / Traits(type).block_elems * Traits(type).block_bytes;
      const float value = infinite ? std::numeric_limits<float>::infinity()
                                   : std::numeric_limits<float>::quiet_NaN();
      const uint16_t half = type == DType::kBF16 ? F32ToBF16(value) : F32ToF16(value);
      if (type == DType::kF32) {
        std::memcpy(&data[at], &value, sizeof(value));
      } else {
        std::memcpy(&data[at], &half, sizeof(half));
      }
      const Survey survey = Of(file);
      EXPECT_NE(survey.model, nullptr);  // loading does not look at the weights
      const VerifyReport report = Verify(survey);
      EXPECT_FALSE(report.ok()) << ToString(type);
      ASSERT_EQ(report.findings.size(), 1u) << ToString(type);
      const TensorFinding& finding = report.findings[0];
      EXPECT_EQ(finding.tensor, "blk.0.ffn_up.weight");
      EXPECT_EQ(finding.row, 3u);
      EXPECT_GE(finding.column, 32u);
      EXPECT_GT(infinite ? finding.infinities + finding.nans : finding.nans, 0u);
    }
  }
}

// Row 3 of 4, element 256 on, of a tensor whose bytes are harmless otherwise.
TEST(VerifyTest, FindsAScaleThatIsNoNumberInEveryQuantisedType) {
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                           DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    const DTypeTraits& traits = Traits(type);
    const uint64_t row = RowBytes(type, 512);
    std::string data(4 * row, '\1');
    const size_t block = 3 * row + row / 2;
    const size_t scale = type == DType::kQ6_K ? traits.block_bytes - sizeof(uint16_t) : 0;
    const uint16_t nan = F32ToF16(std::numeric_limits<float>::quiet_NaN());
    std::memcpy(&data[block + scale], &nan, sizeof(nan));
    const TensorView view{.data = reinterpret_cast<const std::byte*>(data.data()),
                          .type = type,
                          .rows = 4,
                          .cols = 512};
    const SurveyedTensor tensors[] = {
        {.name = "t", .type = traits.name, .bytes = view.bytes(), .view = view}};
    const VerifyReport report = VerifyWeights(tensors, [](uint64_t, uint64_t) {});
    ASSERT_EQ(report.findings.size(), 1u) << traits.name;
    EXPECT_EQ(report.findings[0].nans, traits.block_elems) << traits.name;
    EXPECT_EQ(report.findings[0].infinities, 0u) << traits.name;
    EXPECT_EQ(report.findings[0].row, 3u) << traits.name;
    EXPECT_EQ(report.findings[0].column, 256u) << traits.name;
  }
}

TEST_F(SurveyTest, WarnsOfTensorsThatAreAllZero) {
  GgufBuilder file = TinyLlamaFile();
  std::string& data = file.tensor("blk.0.ffn_up.weight").data;
  data.assign(data.size(), '\0');
  const VerifyReport report = Verify(Of(file));
  EXPECT_TRUE(report.ok());
  ASSERT_EQ(report.findings.size(), 1u);
  EXPECT_TRUE(report.findings[0].all_zero);
}

}  // namespace
}  // namespace tandem
