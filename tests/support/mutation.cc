// Cases and bookkeeping of the mutation fuzz. See mutation.h.
#include "tests/support/mutation.h"

#include <fmt/format.h>

#include <stdexcept>

#include "engine/plan/text.h"
#include "tests/support/plan_builders.h"

namespace tandem::testing {
namespace {

// The toy works in double precision; sums in another order differ by some 1e-15 of their terms.
constexpr double kTolerance = 1e-9;

using Model = std::shared_ptr<const ToyModel>;

void AddPlans(const Model& model, const std::string& shape, uint32_t devices,
              std::vector<MutationCase>& cases) {
  const BlockGraph& graph = model->graph();
  auto add = [&](Plan plan) {
    std::string name = fmt::format("{} {} devices {}", plan.plugin, plan.n_devices, shape);
    cases.push_back({std::move(name), model, std::move(plan)});
  };
  if (devices == 1) {
    add(SinglePlan(graph));
    add(OffloadPlan(graph));
    return;
  }
  std::vector<double> even(devices, 1.0), uneven(devices, 1.0);
  uneven[0] = 2.5;
  add(ReplicasPlan(graph, devices));
  add(LayerSplitPlan(graph, devices, 1));
  add(LayerSplitPlan(graph, devices, devices));
  add(TensorSplitPlan(graph, even, Algorithm::kTwoShot));
  add(TensorSplitPlan(graph, uneven));
  add(SequenceParallelPlan(graph, even));
  add(WeightGatherPlan(graph, devices));
  add(ReplicatedAttentionPlan(graph, devices, devices - 1));
  if (devices == 2) add(DisaggregatePlan(graph));
}

// Whether every index in the plan means something, so that it can be executed at all.
bool StructureIsSound(const Plan& plan, const BlockGraph& graph, const Rig& rig) {
  if (CheckPlanForm(plan, graph, rig)) return false;
  for (const Program& program : plan.programs) {
    uint32_t n_values = 0;
    for (const Op& op : program.ops) {
      if (CheckOpForm(plan, graph, program, op, n_values)) return false;
      n_values += static_cast<uint32_t>(op.out.size());
    }
  }
  return true;
}

}  // namespace

std::vector<MutationCase> MutationCases() {
  const TinyShape shapes[] = {
      {.layers = 1, .kv_heads = 1, .ffn = 3},
      {.layers = 2, .kv_heads = 2, .ffn = 5},
      {.layers = 1, .kv_heads = 3, .ffn = 5, .vocab = 5, .tied = true},
      {.layers = 1, .kv_heads = 8, .ffn = 7, .ffn_per_unit = 1, .vocab = 9, .vocab_per_unit = 4},
  };
  std::vector<MutationCase> cases;
  for (size_t i = 0; i < std::size(shapes); ++i) {
    auto model = std::make_shared<const ToyModel>(TinyGraph(shapes[i]), 17 + i);
    for (uint32_t devices = 1; devices <= 4; ++devices) {
      AddPlans(model, fmt::format("{} KV heads", shapes[i].kv_heads), devices, cases);
    }
  }
  return cases;
}

MutationRun::MutationRun(uint64_t seed, VerifyOptions options)
    : cases_(MutationCases()), random_(seed), options_(options), rig_(TestRig(5)) {}

double MutationRun::Error(const MutationCase& c, const Plan& plan,
                          const std::vector<ProgramInfo>* programs) {
  std::pair key{c.model.get(), SequencesFor(plan)};
  auto found = workloads_.find(key);
  if (found == workloads_.end()) {
    found = workloads_.emplace(key, Workload(*c.model, key.second)).first;
  }
  return ExecuteToy(*c.model, plan, programs, found->second).worst;
}

void MutationRun::CheckCases() {
  for (const MutationCase& c : cases_) {
    VerifyResult result = VerifyPlan(c.plan, c.model->graph(), rig_, PlanLimits{});
    if (!result.ok()) throw std::runtime_error(c.name + ": " + result.refusal->message);
    double error = Error(c, c.plan, &result.programs);
    if (!(error < kTolerance)) {
      throw std::runtime_error(fmt::format("{}: logits differ by {}", c.name, error));
    }
  }
}

void MutationRun::Try(const MutationCase& c, const OnWrong& on_wrong) {
  Plan mutant = Mutate(c.plan, c.model->graph(), random_);
  ++stats_.mutants;
  if (mutant == c.plan) {
    ++stats_.unchanged;
    return;
  }
  VerifyResult result = VerifyPlanWith(mutant, c.model->graph(), rig_, PlanLimits{}, options_);
  if (result.ok()) {
    ++stats_.accepted;
    double error = Error(c, mutant, &result.programs);
    if (error < kTolerance) return;
    ++stats_.accepted_wrong;
    if (on_wrong) on_wrong(c, mutant, error);
    return;
  }
  ++stats_.refused;
  const std::string& rule = result.refusal->rule;
  ++stats_.refused_by_rule[rule];
  // The toy relies on sound structure; the rig's paths do not change what is computed.
  if (rule == "structure" || rule == "rig" || random_() % 16 != 0) return;
  if (!StructureIsSound(mutant, c.model->graph(), rig_)) return;
  ++stats_.refused_tried;
  if (Error(c, mutant, nullptr) < kTolerance) ++stats_.refused_harmless;
}

void MutationRun::Mutants(uint64_t count, const OnWrong& on_wrong) {
  for (uint64_t i = 0; i < count; ++i) Try(cases_[random_() % cases_.size()], on_wrong);
}

}  // namespace tandem::testing
