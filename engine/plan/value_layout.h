// Where the values of one step live: offsets into one arena a device, chosen so that values whose
// lives overlap never share a byte. A value lives from the op that gives it to the last op that
// takes it, both included, so an op never writes over its own operands.
//
// Offsets depend on the rows of each microbatch alone; a step of the same shape as the one before
// reuses them. Those of a program's largest shapes do for every step: a smaller value fits where a
// larger one would stand. That is what makes the memory table's activations a bound.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/units.h"
#include "engine/model/block_graph.h"
#include "engine/plan/cost.h"
#include "engine/plan/plan.h"
#include "engine/plan/verifier.h"

namespace tandem {

struct LaidValue {
  uint32_t device = 0;
  uint64_t bytes = 0;  // zero: takes no room
  uint32_t def_op = 0;
  uint32_t last_use = 0;
};

struct ValueLayout {
  std::vector<uint64_t> offsets;  // by value
  std::vector<uint64_t> peak;     // by device: bytes the arena must have
};

inline constexpr uint64_t kArenaAlign = 64;

// Places the values in order of definition, each in the tightest free gap of its device's arena.
// `layout` keeps its memory from call to call.
void LayOutValues(std::span<const LaidValue> values, uint32_t n_devices, ValueLayout& layout);

// The most rows that each microbatch of a program can have within the limits. A prefill by sequence
// may put all its rows into any of them.
std::vector<MicrobatchShape> LargestShapes(const Program& program, const PlanLimits& limits);

// Every value as large as microbatches of these rows, or of fewer, make it.
ValueLayout LargestLayout(const ProgramInfo& info, const BlockGraph& graph,
                          std::span<const MicrobatchShape> shapes, uint32_t n_devices);

}  // namespace tandem
