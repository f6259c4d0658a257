// Mutates accepted plans and checks that whatever the verifier still accepts computes what an
// unsplit model does. tests/plan/mutation_test.cc runs a few thousand, tests/fuzz/mutation_fuzz.cc
// a million.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/plan/verifier_internal.h"
#include "tests/support/toy_executor.h"

namespace tandem::testing {

// An accepted plan, the toy model it is for, and the workloads it is tried on.
struct MutationCase {
  std::string name;
  std::shared_ptr<const ToyModel> model;
  Plan plan;
};
// Every builder over graphs of 1, 2, 3 and 8 KV heads, odd units, 1 to 4 devices, 1 to 4
// microbatches.
std::vector<MutationCase> MutationCases();

// One to three edits: ops, operands, devices, units, microbatches, slots, kinds, places, whole
// programs. Most results have dense value ids again, so that they get past the first rule.
Plan Mutate(const Plan& plan, const BlockGraph& graph, std::mt19937_64& random);

struct MutationStats {
  uint64_t mutants = 0;
  uint64_t unchanged = 0;  // the edits cancelled out; not counted below
  uint64_t accepted = 0;
  uint64_t accepted_wrong = 0;
  uint64_t refused = 0;
  uint64_t refused_tried = 0;     // a sample of those with sound structure
  uint64_t refused_harmless = 0;  // of the sample: computed right all the same
  std::map<std::string, uint64_t> refused_by_rule;
};

class MutationRun {
 public:
  explicit MutationRun(uint64_t seed, VerifyOptions options = {});
  // Throws std::runtime_error when a case itself is refused or wrong.
  void CheckCases();
  // `on_wrong` gets the case, the mutant and its error, for every plan accepted and wrong.
  using OnWrong = std::function<void(const MutationCase&, const Plan&, double)>;
  void Mutants(uint64_t count, const OnWrong& on_wrong);
  const MutationStats& stats() const { return stats_; }
  size_t n_cases() const { return cases_.size(); }

 private:
  double Error(const MutationCase& c, const Plan& plan, const std::vector<ProgramInfo>* programs);
  void Try(const MutationCase& c, const OnWrong& on_wrong);

  std::vector<MutationCase> cases_;
  std::mt19937_64 random_;
  VerifyOptions options_;
  MutationStats stats_;
  std::map<std::pair<const ToyModel*, uint32_t>, ToyWorkload> workloads_;
  Rig rig_;
};

}  // namespace tandem::testing
