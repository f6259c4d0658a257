// Records survive JSON and files, torn lines and second writers.
#include "engine/lab/record.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "engine/base/error.h"

namespace tandem {
namespace {

Record SampleRecord() {
  Record r;
  r.scenario = "crossover";
  r.question = "When?";
  r.cell = {{"plugin", "tensor_split"}, {"link", "x8"}};
  r.repetition = 2;
  r.fidelity = Fidelity::kEmulated;
  r.clock = ClockKind::kVirtual;
  r.model.name = "m";
  r.model.parameters = 1000;
  r.plugin = "tensor_split";
  r.knobs = {{"k", "v"}};
  r.gpu.prefill_products = PrefillProducts::kCublasLt;
  r.paths_taken = {"d0-d1 local"};
  r.shares = {{48, 132, 2e12, 1.9e12, true, "calibrated"}, {}};
  r.launch = "graph";
  r.gpu.attention_precision = AttentionPrecision::kHalf;
  r.collectives = "fused";
  r.nccl_windows = "refused (why)";
  PhaseResult phase;
  phase.tokens = 16;
  phase.time = Nanos{1000};
  phase.attribution = {{DeviceId{0}, Nanos{600}, Nanos{100}, Nanos{200}, Nanos{50}, Nanos{50}}};
  phase.traffic = {{"all_reduce", "local", Bytes{4096}, 2}};
  phase.step_times = {Nanos{400}, Nanos{600}};
  r.decode = phase;
  r.memory.rows = {{DeviceId{0}, Bytes{1}, Bytes{2}, Bytes{3}, Bytes{4}, Bytes{5}, Bytes{6}},
                   {kHost}};
  r.memory_check = {{.gpu = 1, .ledger = Bytes{7}, .driver = Bytes{9}, .room = Bytes{3}}};
  r.machine = {{"cpu", "c"}};
  return r;
}

class RecordFileTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() /
             ("tandem_record_test_" + std::to_string(getpid()) + ".jsonl"))
                .string();
    std::filesystem::remove(path_);
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::string path_;
};

TEST(RecordTest, SurvivesJson) {
  Record r = SampleRecord();
  EXPECT_EQ(ToJson(RecordFromJson(ToJson(r))), ToJson(r));
  EXPECT_EQ(RecordFromJson(ToJson(r)).Key(), r.Key());
}

TEST(RecordTest, KeepsTheSwitchesThatAreTold) {
  for (const GpuSwitch& s : AllGpuSwitches()) {
    if (!s.told) continue;
    for (const GpuSwitch::Word& word : s.words) {
      Record r = SampleRecord();
      ASSERT_TRUE(s.Set(r.gpu, word.text));
      nlohmann::json json = ToJson(r);
      EXPECT_EQ(json.at(s.key), word.text);
      EXPECT_STREQ(s.WordOf(RecordFromJson(json).gpu), word.text);
      json.erase(s.key);
      EXPECT_STREQ(s.WordOf(RecordFromJson(json).gpu), s.WordOf({})) << "of an older tandem";
      json[s.key] = "nonsense";
      EXPECT_THROW(RecordFromJson(json), Error);
    }
  }
}

TEST(RecordTest, RefusesANewerSchema) {
  nlohmann::json json = ToJson(SampleRecord());
  json["schema_version"] = kRecordSchemaVersion + 1;
  EXPECT_THROW(RecordFromJson(json), Error);
}

TEST(RecordTest, NamesAMissingField) {
  nlohmann::json json = ToJson(SampleRecord());
  json.erase("plan_hash");
  try {
    RecordFromJson(json);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("plan_hash"), std::string::npos) << error.what();
  }
}

TEST(RecordTest, LeavesOutPercentilesTheSampleCannotCarry) {
  Record r = SampleRecord();
  r.serve.emplace();
  r.serve->ttft_ms = {1, 2, 3, 4, 5, 6, 12};
  nlohmann::json ttft = ToJson(r)["serve"]["ttft_ms"];
  EXPECT_TRUE(ttft.contains("p90"));
  EXPECT_FALSE(ttft.contains("p95"));
  EXPECT_FALSE(ttft.contains("p99"));
}

TEST_F(RecordFileTest, AppendsWholeLines) {
  {
    RecordWriter writer(path_);
    writer.Append(SampleRecord());
    writer.Append(SampleRecord());
  }
  bool torn = true;
  EXPECT_EQ(ReadRecords(path_, &torn).size(), 2u);
  EXPECT_FALSE(torn);
}

TEST_F(RecordFileTest, MendsATornLastLine) {
  {
    RecordWriter(path_).Append(SampleRecord());
  }
  {
    std::ofstream(path_, std::ios::app) << "{\"schema_version\":1,\"scen";
  }
  bool torn = false;
  EXPECT_EQ(ReadRecords(path_, &torn).size(), 1u);
  EXPECT_TRUE(torn);
  {
    RecordWriter(path_).Append(SampleRecord());
  }
  EXPECT_EQ(ReadRecords(path_, &torn).size(), 2u);
  EXPECT_FALSE(torn);
}

TEST_F(RecordFileTest, RefusesASecondWriter) {
  RecordWriter first(path_);
  EXPECT_THROW(RecordWriter second(path_), Error);
}

TEST_F(RecordFileTest, NamesTheLineThatIsNoRecord) {
  {
    std::ofstream(path_) << "not json\n";
  }
  try {
    ReadRecords(path_, nullptr);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(":1:"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace tandem
