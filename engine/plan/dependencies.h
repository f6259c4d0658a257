// What each op of a program waits for, derived from the list alone: the events an executor needs
// and the edges a schedule is laid along. A program needs no others.
//
//   for (const Dependency& d : DependenciesOf(graph, program, info)[i]) Wait(d.op);
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/block_graph.h"
#include "engine/plan/plan.h"
#include "engine/plan/verifier.h"

namespace tandem {

enum class DependencyKind : uint8_t {
  kQueue,    // the op before it in one of its queues
  kValue,    // the op that gives an operand
  kWeights,  // the FETCH that filled the slot a RUN reads
  kSlot,     // an op that reads, or fills, what a FETCH is about to overwrite
  kKv,       // the RUN or KV_MOVE that made current the KV that is read
};

struct Dependency {
  uint32_t op = 0;  // an earlier op of the list
  DependencyKind kind = DependencyKind::kQueue;
  bool operator==(const Dependency&) const = default;
};

// Whether an op computes (RUN, NORM, ADD, SAMPLE) rather than moves.
bool IsCompute(OpKind kind);

// The queue that an op occupies on op.devices[index]. A FETCH or KV_MOVE reads through the copy-out
// queue of its source and writes through the copy-in queue of its destination; `op.queue` overrides
// all. The host has no queues.
QueueKind QueueOn(const Op& op, size_t index);

// By op index, in no particular order; an earlier op may be named more than once.
std::vector<std::vector<Dependency>> DependenciesOf(const BlockGraph& graph, const Program& program,
                                                    const ProgramInfo& info);

}  // namespace tandem
