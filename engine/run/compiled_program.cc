#include "engine/run/compiled_program.h"

#include <fmt/format.h>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/plan/fused_ops.h"
#include "engine/plan/text.h"

namespace tandem {
namespace {

// The shard that a source names, or null.
const BlockShard* ShardOf(const WeightSource& source, const Op& run, const Program& program,
                          const BlockGraph& graph, const WeightStore& weights) {
  if (!source.slot) {
    return weights.Resident(run.devices[0], run.block, graph.at(run.block).ElemBegin(source.units));
  }
  const Op& fetch = program.ops[source.fetch_op];
  return weights.InSlot(*source.slot, fetch.block, fetch.units);
}

std::vector<RunPiece> PiecesOf(const Op& run, std::span<const WeightSource> sources,
                               const Program& program, const BlockGraph& graph,
                               const WeightStore& weights) {
  const Block& block = graph.at(run.block);
  std::vector<RunPiece> pieces;
  for (const WeightSource& source : sources) {
    RunPiece piece;
    piece.shard = ShardOf(source, run, program, graph, weights);
    piece.begin = block.ElemBegin(source.units);
    piece.end = block.ElemEnd(source.units);
    piece.units = source.units;
    if (piece.shard == nullptr || piece.shard->begin > piece.begin ||
        piece.end > piece.shard->end) {
      Fail(ErrorCode::kPlan,
           fmt::format("executor: '{}' needs elements [{}, {}) of b{}, which are neither placed on "
                       "the device nor in a slot; the plan's verifier should have refused it",
                       FormatOp(run), piece.begin, piece.end, run.block.value));
    }
    pieces.push_back(piece);
  }
  return pieces;
}

}  // namespace

CompiledProgram CompileWeights(const Program& program, const ProgramInfo& info,
                               const BlockGraph& graph, const WeightStore& weights) {
  CompiledProgram compiled;
  compiled.program = &program;
  compiled.info = &info;
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    CompiledOp c;
    c.op = &op;
    switch (op.kind) {
      case OpKind::kRun:
        c.pieces = PiecesOf(op, info.weights[i], program, graph, weights);
        c.head_norms = weights.NormsOfHeads(op.devices[0], op.block);
        break;
      case OpKind::kAllReduce:
        c.next_adds = NextAdds(program, static_cast<uint32_t>(i));
        break;
      case OpKind::kAdd:
        c.next_norm = NextNorm(graph, program, static_cast<uint32_t>(i));
        break;
      case OpKind::kNorm:
        c.norm = weights.Norm(op.devices[0], op.block);
        Check(c.norm != nullptr, "executor: a norm vector a NORM");
        break;
      case OpKind::kFetch:
        c.fetch_from = weights.FetchSource(op.devices[0], op.block, op.units);
        c.fetch_to = weights.InSlot(*op.slot, op.block, op.units);
        Check(c.fetch_from != nullptr && c.fetch_to != nullptr, "executor: both ends of a fetch");
        break;
      default:
        break;
    }
    compiled.ops.push_back(std::move(c));
  }
  return compiled;
}

void AppendKvDemands(const CompiledProgram& compiled, const BlockGraph& graph,
                     std::vector<KvDemand>& demands) {
  for (const CompiledOp& c : compiled.ops) {
    const Op& op = *c.op;
    if (op.kind == OpKind::kKvMove) {
      demands.push_back({op.devices[0], op.block, op.units});
      demands.push_back({op.devices[1], op.block, op.units});
    }
    if (op.kind != OpKind::kRun || graph.at(op.block).kind != BlockKind::kAttention) continue;
    for (const RunPiece& piece : c.pieces) {
      demands.push_back({op.devices[0], op.block, piece.units});
    }
  }
}

void BindKv(const KvCache& cache, CompiledProgram& compiled, const BlockGraph& graph) {
  for (CompiledOp& c : compiled.ops) {
    const Op& op = *c.op;
    if (op.kind == OpKind::kKvMove) {
      c.kv_from = cache.Pieces(op.devices[0], op.block, op.units);
      c.kv_to = cache.Pieces(op.devices[1], op.block, op.units);
    }
    if (op.kind != OpKind::kRun || graph.at(op.block).kind != BlockKind::kAttention) continue;
    for (RunPiece& piece : c.pieces) {
      piece.kv = cache.Pieces(op.devices[0], op.block, piece.units);
      Check(!piece.kv.empty(), "executor: KV for every attention run");
    }
  }
}

}  // namespace tandem
