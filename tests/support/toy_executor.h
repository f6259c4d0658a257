// A second opinion on plans: a toy transformer in double precision, executed literally as the ops
// say, and the same model computed without any plan. Whatever a plan forgets to put in place is
// NaN: values on another device, weights that were never fetched, KV rows that never came. Shapes
// that do not match give NaN too, never a crash, so refused plans can be tried as well.
//
// The toy keeps what a plan can get wrong and drops the rest: one query head a KV head, positions
// added to keys, a gentle gate in the MLP. An embedding mixes the rows of all tokens, so that a few
// tokens are enough to miss any unit. Elements of a block are those of its graph.
//
//   ToyModel model(graph, /*seed=*/1);
//   ToyRun run = ExecuteToy(model, plan, &verified.programs,
//                           Workload(model, SequencesFor(plan)));
//   EXPECT_LT(run.worst, 1e-9);
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/block_graph.h"
#include "engine/plan/plan.h"
#include "engine/plan/verifier.h"

namespace tandem::testing {

class ToyModel {
 public:
  ToyModel(const BlockGraph& graph, uint64_t seed);

  const BlockGraph& graph() const { return graph_; }
  uint32_t hidden() const { return graph_.config.hidden; }
  uint32_t head_dim() const { return graph_.config.head_dim; }
  uint32_t vocab() const { return graph_.config.vocab; }

  // Weights of one element of a block. EMBED, HEAD: (hidden). MLP: up (hidden), down (hidden).
  // ATTENTION: q, k, v (head_dim, hidden each), out (hidden, head_dim).
  const double* Element(uint32_t block, uint32_t element) const;
  const double* NormOf(uint32_t block) const;  // (hidden)

  // Row operations, shared by the plan's execution and the reference; `out` is added to.
  void Normed(uint32_t block, const double* x, double* out) const;  // overwrites
  void EmbedElement(const double* w, uint32_t token, uint32_t element, double* out) const;
  void MlpElement(const double* w, const double* n, double* out) const;
  // Key and value of one row at a position: (2 * head_dim), overwrites.
  void KeyValue(const double* w, const double* n, uint32_t position, double* kv) const;
  // Attention of one row over kv rows [0, count).
  void Attend(const double* w, const double* n, const double* kv, uint32_t count,
              double* out) const;
  double Dot(const double* w, const double* n) const;

  // Logits (n_tokens, vocab) of a sequence, without plans, devices or caches.
  std::vector<double> Forward(const std::vector<uint32_t>& tokens) const;

 private:
  BlockGraph graph_;
  std::vector<std::vector<double>> weights_;  // by block
  std::vector<uint32_t> floats_;              // by block: of one element
  std::vector<std::vector<double>> norms_;
};

struct ToyRow {
  uint32_t slot = 0;  // of the sequence
  uint32_t position = 0;
  uint32_t token = 0;
  bool sampled = false;
};
struct ToyStep {
  ProgramKind kind = ProgramKind::kPrefill;
  std::vector<ToyRow> rows;
};
struct ToyWorkload {
  uint32_t slots = 0;
  uint32_t positions = 0;  // longest sequence
  std::vector<ToyStep> steps;
  std::vector<std::vector<double>> logits;  // by slot: what is right, (positions, vocab)
};
// A prompt of three tokens and one more in a second step, then two decode steps; as many sequences
// as it takes to have one in each class that the programs' microbatches make, and at least two.
ToyWorkload Workload(const ToyModel& model, uint32_t sequences);
uint32_t SequencesFor(const Plan& plan);

struct ToyRun {
  double worst =
      0;  // largest error of a sampled logit; NaN when any is NaN or was sampled not once
};
// Runs the workload on every lane. `programs` tells where runs read their weights; null: found by
// looking (for plans that the verifier refuses). REQUIRES: the plan's structure is right.
ToyRun ExecuteToy(const ToyModel& model, const Plan& plan, const std::vector<ProgramInfo>* programs,
                  const ToyWorkload& workload);

}  // namespace tandem::testing
