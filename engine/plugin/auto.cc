#include "engine/plugin/auto.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "engine/base/error.h"
#include "engine/base/suggest.h"
#include "engine/plugin/candidates.h"
#include "engine/plugin/helper_run.h"
#include "engine/plugin/objective.h"

namespace tandem {
namespace {

// The order of candidates: time, then (for plans that take the same) memory, fewer knobs, shorter
// name, name.
struct Rank {
  double seconds = 0;
  uint64_t memory = 0;
  size_t knobs = 0;
  std::string name;

  bool Before(const Rank& other) const {
    return std::tuple(seconds, memory, knobs, name.size(), name) <
           std::tuple(other.seconds, other.memory, other.knobs, other.name.size(), other.name);
  }
};

uint64_t TotalMemory(const MemoryTable& table) {
  uint64_t total = 0;
  for (const MemoryRow& row : table.rows) total += row.total().value;
  return total;
}

// The search over all plugins: keeps the best run and every candidate's price or refusal.
class AutoSearch {
 public:
  AutoSearch(const PlannerOptions& options, const PlanProblem& problem,
             const std::vector<Knob>& fixed)
      : options_(options),
        problem_(problem),
        fixed_(fixed),
        use_(TakeAutoUse(problem.limits, &fixed_)) {
    for (const KnobInfo& knob : AutoKnobs()) declared_.push_back(knob.name);
  }

  PlannedRun Search() {
    for (const PluginFile& file : ListPluginFiles(options_.folders)) TryPlugin(file.name);
    CheckKnobsUsed();
    if (candidates_.empty()) {
      Fail(ErrorCode::kPlugin,
           fmt::format("plugin auto: no plugins in {}", fmt::join(options_.folders, ", ")));
    }
    if (!found_) {
      Fail(ErrorCode::kPlan, "plugin auto: no plugin's plan is possible" + Reasons());
    }
    candidates_[best_index_].chosen = true;
    best_.candidates = std::move(candidates_);
    best_.use = use_;
    return std::move(best_);
  }

 private:
  void TryPlugin(const std::string& name) {
    PluginFile file;
    PluginInfo info;
    try {
      file = FindPlugin(name, options_.folders);
      info = DescribeFile(options_, file);
    } catch (const Error& error) {
      candidates_.push_back({.plugin = name, .refused = error.what()});
      return;
    }
    for (const KnobInfo& knob : info.knobs) declared_.push_back(knob.name);
    for (const std::vector<Knob>& knobs : GridPoints(info, fixed_)) TryPoint(file, name, knobs);
  }

  void TryPoint(const PluginFile& file, const std::string& name, const std::vector<Knob>& knobs) {
    PlannedRun::Candidate candidate{.plugin = name, .knobs = knobs};
    try {
      PlannedRun run = RunPlugin(options_, file, problem_, knobs);
      auto [known, added] = prices_.try_emplace(run.plan_hash);
      if (added) known->second = PriceUse(problem_, run.plan, run.verified, use_);
      candidate.prefill = known->second.prefill;
      candidate.decode = known->second.decode;
      candidate.seconds = known->second.seconds;
      Consider(std::move(run), known->second, knobs.size());
    } catch (const PlanRefused& refusal) {
      candidate.refused = refusal.what();
      candidate.reason = refusal.reason();
      candidate.memory = refusal.memory();
    } catch (const Error& error) {
      candidate.refused = error.what();
    }
    candidates_.push_back(std::move(candidate));
  }

  // The candidate about to be listed.
  void Consider(PlannedRun run, const UsePrice& price, size_t n_knobs) {
    Rank rank{price.seconds, TotalMemory(run.verified.memory), n_knobs, run.plugin.name};
    if (found_ && !rank.Before(best_rank_)) return;
    found_ = true;
    best_ = std::move(run);
    best_rank_ = std::move(rank);
    best_index_ = candidates_.size();
  }

  // A line for each reason that a plugin's settings were refused for.
  std::string Reasons() const {
    std::vector<std::string> lines;
    for (const auto& c : candidates_) {
      std::string line =
          fmt::format("\n  {}: {}", c.plugin, c.reason.empty() ? c.refused : c.reason);
      if (std::find(lines.begin(), lines.end(), line) == lines.end()) lines.push_back(line);
    }
    return fmt::format("{}", fmt::join(lines, ""));
  }

  // A knob given under auto holds for every plugin that declares it; none may be a typing error.
  void CheckKnobsUsed() const {
    for (const Knob& knob : fixed_) {
      if (std::find(declared_.begin(), declared_.end(), knob.key) != declared_.end()) continue;
      Fail(ErrorCode::kInvalidArgument, fmt::format("plugin auto: no plugin has a knob '{}'{}",
                                                    knob.key, DidYouMean(knob.key, declared_)));
    }
  }

  const PlannerOptions& options_;
  const PlanProblem& problem_;
  std::vector<Knob> fixed_;
  AutoUse use_;
  std::vector<PlannedRun::Candidate> candidates_;
  std::vector<std::string> declared_;
  std::map<std::string, UsePrice> prices_;  // by plan hash
  bool found_ = false;
  PlannedRun best_;
  Rank best_rank_;
  size_t best_index_ = 0;
};

}  // namespace

PlannedRun SearchPlugins(const PlannerOptions& options, const PlanProblem& problem,
                         const std::vector<Knob>& fixed) {
  return AutoSearch(options, problem, fixed).Search();
}

}  // namespace tandem
