// plugins/template is a stranger's first plugin: it builds alone, against the installed headers,
// with g++ and clang++, exports one symbol, and plans.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "engine/plugin/planner.h"
#include "tests/plugin/temporary_folder.h"
#include "tests/plugin/test_problem.h"

namespace tandem {
namespace {

std::string Quoted(const std::string& word) { return "'" + word + "'"; }

bool Shell(const std::string& command) {
  return std::system((command + " > /dev/null").c_str()) == 0;
}

std::string OutputOf(const std::string& command) {
  std::string output;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return output;
  for (int c = fgetc(pipe); c != EOF; c = fgetc(pipe)) output += static_cast<char>(c);
  pclose(pipe);
  return output;
}

class TemplateTest : public testing::TestWithParam<const char*> {};

TEST_P(TemplateTest, BuildsAgainstTheInstalledHeadersAndPlans) {
  const std::string compiler = GetParam();
  if (!Shell("command -v " + compiler)) GTEST_SKIP() << compiler << " is not installed";
  const TemporaryFolder folder;
  const std::string prefix = folder / "prefix";
  ASSERT_TRUE(Shell("cmake --install " + Quoted(TANDEM_BUILD) +
                    " --component plugin_headers --prefix " + Quoted(prefix)));
  const std::string build = folder / "build";
  ASSERT_TRUE(Shell("cmake -G Ninja -S plugins/template -B " + Quoted(build) +
                    " -DCMAKE_CXX_COMPILER=" + compiler +
                    " -DCMAKE_BUILD_TYPE=Release -DTANDEM_INCLUDE=" + Quoted(prefix + "/include")));
  ASSERT_TRUE(Shell("cmake --build " + Quoted(build)));
  const std::string library = build + "/libtandem_alternate.so";
  EXPECT_THAT(OutputOf("nm -D --defined-only " + Quoted(library)),
              testing::MatchesRegex("[0-9a-f]+ T tandem_plugin_entry_v1\n"));

  PlannerOptions options;
  options.helper = TANDEM_PLANNER;
  const TestProblem test({.layers = 4});
  const PlannedRun run = Planner(options).MakePlan(library, test.problem, {{"stride", "2"}});
  EXPECT_EQ(run.plugin.name, "alternate");
  EXPECT_TRUE(run.verified.ok());
  uint32_t transfers = 0;
  for (const Op& op : run.plan.programs[1].ops) transfers += op.kind == OpKind::kTransfer;
  EXPECT_EQ(transfers, 2u);  // there after two layers, and back
}

INSTANTIATE_TEST_SUITE_P(Compilers, TemplateTest, testing::Values("g++", "clang++"),
                         [](const auto& info) {
                           return std::string(info.param) == "g++" ? "gcc" : "clang";
                         });

}  // namespace
}  // namespace tandem
