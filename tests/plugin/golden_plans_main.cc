// Writes the golden plans anew: golden_plans HELPER PLUGIN_FOLDER, from the repository's root. Read
// the diff before committing it: a changed golden plan is a changed split.
#include <cstdio>
#include <fstream>

#include "engine/base/error.h"
#include "engine/plan/text.h"
#include "tests/plugin/golden_cases.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: golden_plans HELPER PLUGIN_FOLDER\n");
    return 2;
  }
  try {
    tandem::PlannerOptions options;
    options.helper = argv[1];
    options.folders = {argv[2]};
    const tandem::Planner planner(options);
    for (const tandem::GoldenCase& c : tandem::GoldenCases()) {
      const tandem::TestProblem test(c.shape);
      std::ofstream(c.path) << c.header
                            << FormatPlan(planner.MakePlan(c.plugin, test.problem, c.knobs).plan);
      std::printf("%s\n", c.path.c_str());
    }
  } catch (const tandem::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
