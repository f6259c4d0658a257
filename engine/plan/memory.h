// What a plan needs of each device's memory and of the host's, before anything is loaded: the answer
// to "will it fit, per card".
#pragma once

#include <string>
#include <vector>

#include "engine/model/block_graph.h"
#include "engine/plan/plan.h"

namespace tandem {

struct MemoryRow {
  DeviceId device;
  Bytes weights;      // resident places, tied weights once, norms included
  Bytes slots;        // staging for fetched weights
  Bytes kv;           // f16 keys and values of the units that live there, for the whole context,
                      // rounded up to pages
  Bytes activations;  // the largest sum of live values of one step
  Bytes workspace;    // scratch of the kernels
  Bytes capacity;     // zero: unlimited
  Bytes total() const { return weights + slots + kv + activations + workspace; }
  bool fits() const { return capacity.value == 0 || total() <= capacity; }
};

struct MemoryTable {
  std::vector<MemoryRow> rows;  // d0, d1, ..., host
};

// Bytes of scratch one step needs on a device: quantised rows, gate/up/attention temporaries.
// The executor allocates exactly this.
Bytes WorkspaceBytes(const BlockGraph& graph, uint32_t max_step_tokens);

}  // namespace tandem
