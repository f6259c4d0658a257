// Fixed work: prefill a prompt, decode some tokens. Runs it on an engine and keeps each step's op
// times; lays those on any rig's links afterwards.
#pragma once

#include <functional>
#include <vector>

#include "engine/lab/record.h"
#include "engine/lab/scenario.h"

namespace tandem {

// What a step was and how long its compute ops took in rig time: enough to lay it on other links.
struct StepTrace {
  ProgramKind phase = ProgramKind::kPrefill;
  uint32_t lane = 0;
  uint32_t sequences = 0;
  StepShape shape;
  std::vector<Nanos> op_times;
  Timeline timeline;  // as it was laid on the engine's own rig
  Bytes counted;      // by the ledger
  Bytes sampled;      // of these, by SAMPLE: what crosses follows the back end (ids, or logits)
  Nanos length;       // on the engine's clock
  uint32_t clipped_ops = 0;
};

struct PhaseTraces {
  std::vector<StepTrace> prefill;  // the prefill of one prompt
  std::vector<StepTrace> decode;   // steps with every sequence running
};

// Runs the cell's phases once. Prompts are random ids drawn by `seed`.
// Between steps `interrupted` is asked; when it says so, throws Error(kCancelled) and leaves the
// engine with work that nobody is to go on with.
PhaseTraces RunPhases(Engine& engine, const Cell& cell, uint64_t seed,
                      const std::function<bool()>& interrupted = nullptr);

// The result of a phase. Where `rig` is not the engine's own, each step is laid anew on its links
// and traffic follows the shapes; else the engine's timelines and counted bytes are used. Under a
// virtual clock lanes run side by side: `time` is the longest lane's; on the wall clock they take
// turns.
PhaseResult SumPhase(const Engine& engine, const std::vector<StepTrace>& steps, ProgramKind phase,
                     const Cell& cell, const Rig* rig);

// The same phase priced without running: rates and link shares for Record::predicted, and whole
// phase results for predicted cells. `rig` is driven as the cell says (DriveRig). None where the
// cell has no such phase, or where its products have no price (switch_prices.h).
std::optional<PhaseResult> PredictPhase(const BlockGraph& graph, const PlannedRun& planned,
                                        const Rig& rig, const Cell& cell, ProgramKind phase);

}  // namespace tandem
