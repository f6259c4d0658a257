// A verified program with everything that does not change from step to step looked up once: which
// packed weights a run reads, which KV pieces it fills, what a fetch copies from where to where.
//
// Immutable once compiled; points into the plan, the WeightStore and the KvCache, which outlive it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/link/transport.h"
#include "engine/model/block_graph.h"
#include "engine/plan/fused_ops.h"
#include "engine/plan/plan.h"
#include "engine/plan/verifier.h"
#include "engine/run/kv_cache.h"
#include "engine/run/weights.h"

namespace tandem {

// A part of a RUN that reads one shard: elements [begin, end) of the block. A run that no single
// shard covers (part resident, part in a slot) is several, whose outputs add up in order of
// elements.
struct RunPiece {
  const BlockShard* shard = nullptr;
  uint32_t begin = 0;
  uint32_t end = 0;
  UnitRange units;
  std::span<const KvPiece> kv;  // ATTENTION: the pieces of `units`
};

struct CompiledOp {
  const Op* op = nullptr;
  uint32_t next_norm = kNoOp;              // ADD: the NORM of its sum that may run with it
  std::vector<uint32_t> next_adds;         // ALL_REDUCE: by rank, the ADDs that may run with it
  std::vector<RunPiece> pieces;            // RUN
  const float* norm = nullptr;             // NORM
  HeadNorms head_norms;                    // RUN of an ATTENTION block
  const BlockShard* fetch_from = nullptr;  // FETCH
  const BlockShard* fetch_to = nullptr;
  std::span<const KvPiece> kv_from;  // KV_MOVE: the same pieces at both ends
  std::span<const KvPiece> kv_to;
  Transport* transport = nullptr;  // movements and SAMPLE
  BlockId moves_block;             // whose values a movement carries
};

struct CompiledProgram {
  const Program* program = nullptr;
  const ProgramInfo* info = nullptr;
  std::vector<CompiledOp> ops;
};

// First pass: weights. KV spans stay empty. Throws Error(kPlan) when a run's weights are nowhere.
CompiledProgram CompileWeights(const Program& program, const ProgramInfo& info,
                               const BlockGraph& graph, const WeightStore& weights);
// What the program needs of the KV cache.
void AppendKvDemands(const CompiledProgram& compiled, const BlockGraph& graph,
                     std::vector<KvDemand>& demands);
// Second pass: KV.
void BindKv(const KvCache& cache, CompiledProgram& compiled, const BlockGraph& graph);

}  // namespace tandem
