// Plugins that break their contract in every way end as an error message, and good ones as plans.
#include "engine/plugin/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <set>
#include <sstream>

#include "engine/base/error.h"
#include "engine/base/sha256.h"
#include "engine/plan/text.h"
#include "tests/plugin/temporary_folder.h"
#include "tests/plugin/test_problem.h"

namespace tandem {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const char kHelper[] = TANDEM_PLANNER;
const char kFixtures[] = TANDEM_FIXTURES;
const char kPlugins[] = TANDEM_PLUGINS;

PlannerOptions Options(const std::string& folder) {
  PlannerOptions options;
  options.helper = kHelper;
  options.folders = {folder};
  options.memory_limit = Bytes{uint64_t{192} << 20};
  return options;
}

// The message that planning with a bad plugin ends in.
std::string Complaint(const std::string& name, ErrorCode code,
                      const PlannerOptions& options = Options(kFixtures)) {
  TestProblem test;
  try {
    Planner(options).MakePlan(name, test.problem, {});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << name << " was accepted";
  return "";
}

TEST(PlannerTest, RefusesADescriptorOfTheWrongKind) {
  EXPECT_THAT(Complaint("no_entry", ErrorCode::kPlugin),
              HasSubstr("has no symbol tandem_plugin_entry_v1"));
  EXPECT_THAT(Complaint("null_entry", ErrorCode::kPlugin), HasSubstr("returned null"));
  EXPECT_THAT(Complaint("wrong_major", ErrorCode::kPlugin), HasSubstr("made for plugin ABI 7"));
  EXPECT_THAT(Complaint("newer_minor", ErrorCode::kPlugin), HasSubstr("needs plugin ABI 1.99"));
  EXPECT_THAT(Complaint("newer_field", ErrorCode::kPlugin), HasSubstr("does not know"));
  EXPECT_THAT(Complaint("misnamed", ErrorCode::kPlugin),
              HasSubstr("calls itself 'somebody_else' but its file says 'misnamed'"));
}

TEST(PlannerTest, RefusesAFileThatIsNoSharedObject) {
  TemporaryFolder folder;
  folder.Write("torn.so",
               "\x7f"
               "ELF and then nothing");
  EXPECT_THAT(Complaint("torn", ErrorCode::kPlugin, Options(folder.path())),
              HasSubstr("cannot be loaded"));
}

TEST(PlannerTest, AcceptsALongerDescriptorWhoseTailIsZero) {
  TestProblem test;
  const PlannedRun run = Planner(Options(kFixtures)).MakePlan("longer_struct", test.problem, {});
  EXPECT_EQ(run.plugin.abi_minor_built, 3u);
  EXPECT_TRUE(run.verified.ok());
}

TEST(PlannerTest, RunsAPluginWrittenInC) {
  TestProblem test;
  const PlannedRun run = Planner(Options(kFixtures)).MakePlan("in_c", test.problem, {});
  EXPECT_EQ(run.plan_hash,
            Planner(Options(kPlugins)).MakePlan("single", test.problem, {}).plan_hash);
}

TEST(PlannerTest, TellsWhatAPluginThrew) {
  EXPECT_EQ(Complaint("throws", ErrorCode::kPlugin),
            "plugin throws: gave up with status -1: the sky fell");
}

TEST(PlannerTest, NamesTheCallThatTheHostRefused) {
  EXPECT_THAT(Complaint("garbage_ids", ErrorCode::kPlugin),
              HasSubstr("(op) was refused: operand 0 is value id 3735928559"));
  EXPECT_THAT(Complaint("ignores_refusal", ErrorCode::kPlugin),
              AllOf(HasSubstr("ignored that call 1 (op) was refused"), HasSubstr("op kind 77")));
}

TEST(PlannerTest, NamesTheRuleThatAPlanBreaks) {
  EXPECT_THAT(Complaint("skips_layer", ErrorCode::kPlan), HasSubstr("plan of skips_layer"));
  EXPECT_THAT(Complaint("no_decode", ErrorCode::kPlan), HasSubstr("plan of no_decode"));
}

TEST(PlannerTest, SurvivesAPluginThatCrashes) {
  // Under AddressSanitizer the helper reports the crash itself and exits.
  EXPECT_THAT(Complaint("segfaults", ErrorCode::kPlugin),
              AllOf(HasSubstr("SEGV"), HasSubstr("in plan()"), HasSubstr("about to crash")));
  EXPECT_THAT(Complaint("crashes_on_load", ErrorCode::kPlugin),
              AllOf(HasSubstr("ABRT"), HasSubstr("while it was being loaded")));
}

TEST(PlannerTest, StopsAPluginThatDoesNotReturn) {
  PlannerOptions options = Options(kFixtures);
  options.timeout_s = 0.5;
  const auto before = std::chrono::steady_clock::now();
  EXPECT_THAT(Complaint("hangs", ErrorCode::kPlugin, options),
              AllOf(HasSubstr("did not return within 0.5 s"), HasSubstr("about to hang")));
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(5));
}

TEST(PlannerTest, StopsAPluginThatTakesMemoryWithoutBound) {
  EXPECT_THAT(Complaint("eats_memory", ErrorCode::kPlugin), HasSubstr("its limit is 192 MiB"));
}

TEST(PlannerTest, KeepsItsChannelFromPluginsThatScribbleOrHangUp) {
  EXPECT_THAT(Complaint("scribbles", ErrorCode::kPlugin), HasSubstr("reply is damaged"));
  EXPECT_THAT(Complaint("hangs_up", ErrorCode::kPlugin),
              AllOf(HasSubstr("ended with exit status 0"), HasSubstr("in plan()")));
}

TEST(PlannerTest, CatchesWhatAPluginPrints) {
  TestProblem test;
  const PlannedRun run = Planner(Options(kFixtures)).MakePlan("prints", test.problem, {});
  EXPECT_TRUE(run.verified.ok());
  EXPECT_THAT(run.diagnostics,
              testing::ElementsAre("warning: I print", HasSubstr("hello from a plugin")));
}

TEST(PlannerTest, SaysWhenTheHelperIsMissing) {
  PlannerOptions options = Options(kPlugins);
  options.helper = "/does/not/exist";
  EXPECT_THAT(Complaint("single", ErrorCode::kPlugin, options),
              HasSubstr("cannot start /does/not/exist"));
  options.helper = "/bin/true";
  EXPECT_THAT(Complaint("single", ErrorCode::kPlugin, options),
              HasSubstr("ended with exit status 0 before it was opened"));
}

TEST(PlannerTest, RefusesAPluginThatAnyoneMayWrite) {
  TemporaryFolder folder;
  const std::string copy = folder / "libtandem_single.so";
  std::filesystem::copy_file(std::string(kPlugins) + "/libtandem_single.so", copy);
  chmod(copy.c_str(), 0666);
  EXPECT_THAT(Complaint("single", ErrorCode::kPlugin, Options(folder.path())),
              HasSubstr("anyone may write to it"));
}

TEST(PlannerTest, RecordsWhoPlanned) {
  TestProblem test;
  const std::string path = std::string(kPlugins) + "/libtandem_layer_split.so";
  const PlannedRun run =
      Planner(Options(kPlugins)).MakePlan(path, test.problem, {{"microbatches", "4"}});
  EXPECT_EQ(run.requested, path);
  EXPECT_EQ(run.plugin.name, "layer_split");
  EXPECT_EQ(run.plugin.sha256, Sha256HexOfFile(path));
  EXPECT_EQ(run.plan_hash, PlanHash(run.plan));
  EXPECT_EQ(run.plan.plugin, "layer_split");
  EXPECT_THAT(run.plan.knobs, testing::Contains(Knob{"microbatches", "4"}));
  EXPECT_THAT(run.plan.knobs, testing::Contains(Knob{"cut", "bytes"}));
  EXPECT_FALSE(run.verified.memory.rows.empty());
  EXPECT_GT(run.plan.programs[0].ops[0].plugin_call, 0u);
}

TEST(PlannerTest, RefusesABadKnobOrShare) {
  TestProblem test;
  const Planner planner(Options(kPlugins));
  const auto complaint = [&](const std::string& name, const std::vector<Knob>& knobs) {
    try {
      planner.MakePlan(name, test.problem, knobs);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << error.what();
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(complaint("layer_split", {{"microbatch", "1"}}),
              HasSubstr("did you mean 'microbatches'?"));
  EXPECT_THAT(complaint("layer_split", {{"microbatches", "9"}}), HasSubstr("9 (want 1 to 8)"));
  EXPECT_THAT(complaint("layer_split", {{"cut", "cake"}}), HasSubstr("'cake'"));
  EXPECT_THAT(complaint("offload", {{"resident_layers", "7"}}), HasSubstr("want auto, or 0 to 2"));
  test.problem.tensor_split = {1, 2, 3};
  EXPECT_THAT(complaint("tensor_split", {}), HasSubstr("3 shares for 2 devices"));
  test.problem.tensor_split = {0, 0};
  EXPECT_THAT(complaint("tensor_split", {}), HasSubstr("sum to zero"));
  test.problem.tensor_split = {1, -1};
  EXPECT_THAT(complaint("tensor_split", {}), HasSubstr("share -1"));
}

TEST(PlannerTest, SaysWhenAPlanDoesNotFit) {
  TestProblem test({.memory = Bytes{100'000}});
  EXPECT_THROW(Planner(Options(kPlugins)).MakePlan("single", test.problem, {}), Error);
}

TEST(PlannerTest, ListsEveryPluginBrokenOnesToo) {
  const std::vector<PluginInfo> good = Planner(Options(kPlugins)).List();
  std::vector<std::string> names;
  for (const PluginInfo& info : good) names.push_back(info.name);
  EXPECT_THAT(names, testing::IsSupersetOf(
                         {"layer_split", "offload", "replicas", "single", "tensor_split"}));
  TemporaryFolder folder;
  folder.Write("torn.so", "not a library");
  const std::vector<PluginInfo> bad = Planner(Options(folder.path())).List();
  ASSERT_EQ(bad.size(), 1u);
  EXPECT_EQ(bad[0].name, "torn");
  EXPECT_THAT(bad[0].summary, HasSubstr("broken: "));
}

TEST(PlannerTest, RunsAPlanFromAFile) {
  TestProblem test;
  const Planner planner(Options(kPlugins));
  const PlannedRun made = planner.MakePlan("tensor_split", test.problem, {});
  TemporaryFolder folder;
  const std::string path = folder.Write("plan.txt", FormatPlan(made.plan));
  const PlannedRun run = planner.MakePlan("file", test.problem, {{"plan", path}});
  EXPECT_EQ(run.plan_hash, made.plan_hash);
  EXPECT_EQ(run.requested, "file");
  EXPECT_EQ(run.plugin.name, "file");
  EXPECT_EQ(run.plan.plugin, "tensor_split");

  EXPECT_THROW(planner.MakePlan("file", test.problem, {}), Error);
  EXPECT_THROW(planner.MakePlan("file", test.problem, {{"plan", folder / "absent"}}), Error);
  const std::string torn = folder.Write("torn.txt", FormatPlan(made.plan).substr(0, 300));
  EXPECT_THROW(planner.MakePlan("file", test.problem, {{"plan", torn}}), Error);
}

TEST(PlannerTest, APlanFileTakesThePathThatIsAskedFor) {
  TestProblem test;
  const Planner planner(Options(kPlugins));
  const PlannedRun made = planner.MakePlan("layer_split", test.problem, {});
  TemporaryFolder folder;
  const std::string path = folder.Write("plan.txt", FormatPlan(made.plan));
  test.problem.path = PathKind::kHostStaged;
  const PlannedRun staged = planner.MakePlan("file", test.problem, {{"plan", path}});
  EXPECT_EQ(staged.plan_hash, planner.MakePlan("layer_split", test.problem, {}).plan_hash);
  EXPECT_NE(staged.plan_hash, made.plan_hash);
}

TEST(PlannerTest, AutoTakesTheFastestThatFits) {
  TestProblem test;
  const Planner planner(Options(kPlugins));
  const PlannedRun run = planner.MakePlan("auto", test.problem, {{"sequences", "1"}});
  EXPECT_EQ(run.requested, "auto");
  size_t chosen = 0;
  for (const PlannedRun::Candidate& c : run.candidates) {
    EXPECT_EQ(c.refused, "") << c.plugin;
    EXPECT_GT(c.decode.value, 0) << c.plugin;
    chosen += c.chosen ? 1 : 0;
    if (c.chosen) {
      EXPECT_EQ(c.plugin, run.plugin.name);
    }
  }
  EXPECT_EQ(chosen, 1u);
  // A tiny model over any link is fastest on one card.
  EXPECT_EQ(run.plugin.name, "single");
}

TEST(PlannerTest, AutoMinimisesTheTimeOfTheUseItIsAskedFor) {
  TestProblem test;
  test.problem.limits = PlanLimits{.max_step_tokens = 64, .max_sequences = 8, .context = 8 * 128};
  const Planner planner(Options(kPlugins));
  // Eight users on two cards: each card serves four of them.
  const PlannedRun many = planner.MakePlan("auto", test.problem, {});
  ASSERT_TRUE(many.use.has_value());
  EXPECT_EQ(many.use->sequences, 8u);
  EXPECT_EQ(many.use->prompt_tokens + many.use->output_tokens, 128u) << "what a slot holds";
  EXPECT_EQ(many.plugin.name, "replicas");
  const PlannedRun one = planner.MakePlan("auto", test.problem, {{"sequences", "1"}});
  EXPECT_EQ(one.plugin.name, "single");
  for (const PlannedRun* run : {&many, &one}) {
    double chosen = 0;
    for (const PlannedRun::Candidate& c : run->candidates) chosen = c.chosen ? c.seconds : chosen;
    EXPECT_GT(chosen, 0);
    for (const PlannedRun::Candidate& c : run->candidates) {
      if (!c.refused.empty()) continue;
      EXPECT_GE(c.seconds, chosen) << c.plugin;
    }
  }
  const PlannedRun longer = planner.MakePlan(
      "auto", test.problem, {{"prompt_tokens", "16"}, {"output_tokens", "32"}, {"sequences", "3"}});
  EXPECT_EQ(longer.use->prompt_tokens, 16u);
  EXPECT_EQ(longer.use->output_tokens, 32u);
  EXPECT_EQ(longer.use->sequences, 3u);
  for (const char* bad : {"0", "-1", "2x", "", "99999999999"}) {
    EXPECT_THROW(planner.MakePlan("auto", test.problem, {{"sequences", bad}}), Error) << bad;
  }
}

TEST(PlannerTest, AutoSplitsNothingOverDevicesThatTakeTurns) {
  TestProblem test;
  test.rig = ThisMachineRig(2);
  test.problem.limits = PlanLimits{.max_step_tokens = 64, .max_sequences = 8, .context = 8 * 128};
  const Planner planner(Options(kPlugins));
  // On a rig in its own time the second device has its own memory bus: eight users take both.
  EXPECT_EQ(planner.MakePlan("auto", test.problem, {}).plugin.name, "replicas");
  test.problem.devices_take_turns = true;
  for (const char* sequences : {"1", "2", "3", "8", "64"}) {
    for (const char* tokens : {"1", "64"}) {
      const PlannedRun run = planner.MakePlan(
          "auto", test.problem,
          {{"sequences", sequences}, {"prompt_tokens", tokens}, {"output_tokens", tokens}});
      EXPECT_EQ(run.plugin.name, "single") << sequences << " of " << tokens;
    }
  }
}

TEST(PlannerTest, AutoSaysEachReasonOnce) {
  TestProblem tiny({.memory = Bytes{1000}});
  try {
    Planner(Options(kPlugins)).MakePlan("auto", tiny.problem, {});
    ADD_FAILURE() << "it fits";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_THAT(text, HasSubstr("\n  single: d0 needs "));
    EXPECT_THAT(text, HasSubstr(" of 1 kB"));
    std::set<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) {
      EXPECT_TRUE(lines.insert(line).second) << line;
      EXPECT_LE(line.size(), 100u) << line;
    }
  }
}

TEST(PlannerTest, AutoLeavesOutWhatDoesNotFitAndSaysSo) {
  TestProblem whole;
  const Planner planner(Options(kPlugins));
  const MemoryRow one = planner.MakePlan("single", whole.problem, {}).verified.memory.rows[0];
  TestProblem test({.memory = Bytes{one.total().value - 20'000}});
  const PlannedRun run = planner.MakePlan("auto", test.problem, {});
  EXPECT_NE(run.plugin.name, "single");
  bool told = false;
  for (const PlannedRun::Candidate& c : run.candidates) {
    if (c.plugin != "single") continue;
    told = !c.refused.empty();
    EXPECT_THAT(c.reason, HasSubstr("d0 "));
    EXPECT_EQ(c.memory.rows.size(), 3u);
  }
  EXPECT_TRUE(told);

  TestProblem tiny({.memory = Bytes{1000}});
  EXPECT_THROW(planner.MakePlan("auto", tiny.problem, {}), Error);
}

TEST(PlannerTest, AutoHoldsAGivenKnobAndRefusesOneThatNobodyHas) {
  TestProblem test;
  const Planner planner(Options(kPlugins));
  const PlannedRun run = planner.MakePlan("auto", test.problem, {{"microbatches", "3"}});
  for (const PlannedRun::Candidate& c : run.candidates) {
    if (c.plugin == "layer_split") {
      EXPECT_THAT(c.knobs, testing::Contains(Knob{"microbatches", "3"}));
    }
  }
  EXPECT_THROW(planner.MakePlan("auto", test.problem, {{"microbatch", "3"}}), Error);
}

TEST(PlannerTest, AutoListsABrokenPlugin) {
  TestProblem test;
  TemporaryFolder folder;
  folder.Write("torn.so", "not a library");
  PlannerOptions options = Options(kPlugins);
  options.folders.push_back(folder.path());
  const PlannedRun run = Planner(options).MakePlan("auto", test.problem, {});
  bool told = false;
  for (const PlannedRun::Candidate& c : run.candidates) {
    if (c.plugin == "torn") told = c.refused.find("cannot be loaded") != std::string::npos;
  }
  EXPECT_TRUE(told);
}

}  // namespace
}  // namespace tandem
