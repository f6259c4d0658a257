// Scenarios: axes, ranges, overrides, and what bad YAML gets.
#include "engine/lab/scenario.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "engine/base/error.h"

namespace tandem {
namespace {

class ScenarioTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() /
             ("tandem_scenario_" + std::to_string(getpid()) + ".yaml"))
                .string();
  }
  void TearDown() override { std::filesystem::remove(path_); }

  Scenario Load(const std::string& text, const std::vector<std::string>& overrides = {}) {
    std::ofstream(path_) << text;
    return LoadScenario(path_, overrides);
  }

  // The message that loading `text` fails with; "" when it loads.
  std::string Refusal(const std::string& text, const std::vector<std::string>& overrides = {}) {
    try {
      Load(text, overrides);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << error.what();
      return error.what();
    }
    return "";
  }
  std::string path_;
};

constexpr const char* kSmall =
    "question: Why?\nplugin: single\nrig: r\nphases:\n  decode: {tokens: 4}\n";

TEST_F(ScenarioTest, MultipliesItsAxes) {
  Scenario s = Load(
      "question: Why?\nmodel: [a, b]\nrig: r\nlink: [x, y, z]\nplugin: [single, {name: "
      "layer_split, microbatches: 4}]\n"
      "phases:\n  prefill: {tokens: 64}\n  decode: {sequences: [1, 2]}\n");
  EXPECT_EQ(s.cells.size(), 2u * 3 * 2 * 2);
  std::set<std::string> seen;
  for (const Cell& c : s.cells) {
    seen.insert(c.model + c.link + c.plugin.Label() + std::to_string(c.decode->sequences));
    EXPECT_EQ(c.prefill->tokens, 64u);
    EXPECT_EQ(c.axes.size(), 4u);
  }
  EXPECT_EQ(seen.size(), s.cells.size());
}

TEST_F(ScenarioTest, ExpandsRanges) {
  Scenario doubling =
      Load("question: q\nplugin: single\nphases:\n  prefill: {tokens: 128..2048*2}\n");
  ASSERT_EQ(doubling.cells.size(), 5u);
  EXPECT_EQ(doubling.cells[4].prefill->tokens, 2048u);
  Scenario steps = Load("question: q\nplugin: single\nphases:\n  prefill: {tokens: 1..9+4}\n");
  ASSERT_EQ(steps.cells.size(), 3u);
  EXPECT_EQ(steps.cells[2].prefill->tokens, 9u);
}

TEST_F(ScenarioTest, MakesRoomForItsWork) {
  Scenario s = Load(
      "question: q\nplugin: single\nphases:\n  decode: {context: 100, tokens: 20, sequences: 3}\n");
  EXPECT_EQ(s.cells[0].limits.max_sequences, 3u);
  EXPECT_GE(s.cells[0].limits.context / 3, 100u + 20 + 3);
}

TEST_F(ScenarioTest, TakesOverrides) {
  Scenario s = Load(kSmall, {"repetitions=7", "phases.decode.sequences=[1,8]"});
  EXPECT_EQ(s.repetitions, 7u);
  EXPECT_EQ(s.cells.size(), 2u);
}

TEST_F(ScenarioTest, VariesHowGpusAreDriven) {
  const Scenario s = Load(std::string(kSmall) +
                          "graphs: [on, off]\nfuse_collectives: [on, off]\nnccl_windows: off\n"
                          "p2p_way: pull\n");
  ASSERT_EQ(s.cells.size(), 4u);
  EXPECT_EQ(s.cells[0].gpu.graphs, GraphUse::kOn);
  EXPECT_TRUE(s.cells[0].gpu.fuse_collectives);
  EXPECT_FALSE(s.cells[1].gpu.fuse_collectives);
  EXPECT_EQ(s.cells[3].gpu.graphs, GraphUse::kOff);
  EXPECT_FALSE(s.cells[3].gpu.nccl_windows);
  EXPECT_EQ(s.cells[3].gpu.p2p_way, P2pWay::kPull);
  EXPECT_EQ(s.cells[3].axes.size(), 3u) << "the plugin, and what varies";
}

TEST_F(ScenarioTest, EverySwitchOfGpusIsAnAxis) {
  for (const GpuSwitch& s : AllGpuSwitches()) {
    std::string words;
    for (const GpuSwitch::Word& word : s.words) words += std::string(", ") + word.text;
    const Scenario all = Load(std::string(kSmall) + s.key + ": [" + words.substr(2) + "]\n");
    ASSERT_EQ(all.cells.size(), s.words.size()) << s.key;
    for (size_t i = 0; i < s.words.size(); ++i) {
      EXPECT_STREQ(s.WordOf(all.cells[i].gpu), s.words[i].text);
      EXPECT_EQ(all.cells[i].axes.back().first, s.key);
      EXPECT_EQ(all.cells[i].axes.back().second, s.words[i].text);
    }
    EXPECT_NE(Refusal(std::string(kSmall) + s.key + ": nonsense\n").find(s.Wanted()),
              std::string::npos);
  }
}

TEST_F(ScenarioTest, RefusesAnUnknownKeyWithItsLineAndANearOne) {
  std::string message = Refusal(std::string(kSmall) + "repetitons: 3\n");
  EXPECT_NE(message.find(":6"), std::string::npos) << message;
  EXPECT_NE(message.find("repetitions"), std::string::npos) << message;
}

TEST_F(ScenarioTest, RefusesADuplicateKey) {
  EXPECT_NE(Refusal(std::string(kSmall) + "rig: other\n"), "");
}

TEST_F(ScenarioTest, RefusesBadValues) {
  for (const char* line :
       {"clock: sundial\n", "wire: f64\n", "repetitions: 0\n", "repetitions: 2.5\n",
        "order: random\n", "path: tunnel\n", "tensor_split: a,b\n", "devices: 0\n",
        "activations: int4\n", "attention_precision: f16\n", "prefill_products: cublas\n",
        "graphs: maybe\n", "fuse_collectives: auto\n", "nccl_windows: 1\n", "p2p_way: throw\n"}) {
    EXPECT_NE(Refusal(std::string(kSmall) + line), "") << line;
  }
  EXPECT_NE(Refusal("question: q\nplugin: single\nphases:\n  prefill: {tokens: 9..1}\n"), "");
  EXPECT_NE(Refusal("question: q\nplugin: single\nphases:\n  prefill: {tokens: 1..9*1}\n"), "");
}

TEST_F(ScenarioTest, WantsPhasesOrAWorkloadButNotBoth) {
  EXPECT_NE(Refusal("question: q\nplugin: single\n"), "");
  EXPECT_NE(Refusal(std::string(kSmall) + "workload: {loop: open}\n"), "");
}

TEST_F(ScenarioTest, RefusesTooManyCells) {
  EXPECT_NE(Refusal("question: q\nplugin: single\nphases:\n  prefill: {tokens: 1..1000+1}\n  "
                    "decode: {sequences: 1..100+1}\n"),
            "");
}

TEST_F(ScenarioTest, EveryShippedScenarioLoads) {
  for (const auto& entry : std::filesystem::directory_iterator("scenarios")) {
    if (entry.path().extension() != ".yaml") continue;
    Scenario s = LoadScenario(entry.path().string(), {});
    EXPECT_FALSE(s.question.empty()) << entry.path();
    EXPECT_FALSE(s.cells.empty()) << entry.path();
  }
}

}  // namespace
}  // namespace tandem
