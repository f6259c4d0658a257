// What a plan needs of each device's memory and of the host's, before anything is loaded: the
// answer to "will it fit, per card". It is a bound: an engine never holds more, by device and in
// sum, than its table says (a test holds it to that for every plan).
#pragma once

#include <string>
#include <vector>

#include "engine/model/block_graph.h"
#include "engine/plan/link_memory.h"
#include "engine/plan/plan.h"

namespace tandem {

struct ProgramInfo;
struct ValueInfo;

struct MemoryRow {
  DeviceId device;
  Bytes weights;      // as the model stores them: resident places, tied weights once, norms,
                      // copies that fetches read
  Bytes slots;        // staging for fetched weights
  Bytes kv;           // f16 keys and values of the units that live there, for the whole context,
                      // rounded up to pages
  Bytes activations;  // the values of the largest step, as LargestLayout places them
  Bytes workspace;    // scratch of the kernels, padding of packed weights, sampled ids
  Bytes links;        // slots, flags and staging of the transports between devices (link_memory.h)
  Bytes capacity;     // zero: unlimited
  Bytes total() const { return weights + slots + kv + activations + workspace + links; }
  bool fits() const { return capacity.value == 0 || total() <= capacity; }
};

struct MemoryTable {
  std::vector<MemoryRow> rows;  // d0, d1, ..., host
};

// Bytes of scratch one step needs on a device, for rows = max_step_tokens:
//   4 * rows * (2 * q_dim + 2 * kv_dim + 2 * ffn)      q and attention out, k and v, gate and up:
//   f32
//   + 8 * rows * max(hidden, q_dim, ffn)               a product's input rows, prepared (quantised)
//   + 65536                                            alignment and small things
// The executor allocates exactly this on every device that runs a block, and the last summand alone
// on the others. Attention works in what its q, k, v and output leave of it.
inline constexpr uint64_t kSmallWorkspace = 65536;
Bytes WorkspaceBytes(const BlockGraph& graph, uint32_t max_step_tokens);

// Tokens of KV that one sequence slot provides for: its share of the context, in whole pages.
inline constexpr uint32_t kKvPageTokens = 64;
uint32_t KvTokensPerSlot(const PlanLimits& limits);

// Rows [floor(rows * shard / shards), floor(rows * (shard + 1) / shards)) are a token shard's.
uint32_t ShardRows(uint32_t rows, uint32_t shard, uint32_t shards);

// Bytes of one value, f32, when its microbatch has `rows` rows of which `sampled` are sampled; and
// the most when it has so many or fewer (a token shard of fewer rows may be one row larger).
Bytes ValueBytes(const BlockGraph& graph, const ValueInfo& value, uint32_t rows, uint32_t sampled);
Bytes MostValueBytes(const BlockGraph& graph, const ValueInfo& value, uint32_t rows,
                     uint32_t sampled);

// Through which weights cross to a GPU from host memory that is not page-locked: page-locked
// chunks, filled and emptied in turn, a ring for each device that fetches from the host. A host
// with GPUs always has room for it.
inline constexpr uint32_t kFetchRingChunks = 4;
inline constexpr uint64_t kFetchRingBytes = kFetchRingChunks * (uint64_t{4} << 20);
// What the self-test of a path takes at each end, before anything else is there.
inline constexpr uint64_t kSelfTestBytes = kHostStagingBytes + 12346;

// What an accepted plan needs. `programs` is parallel to plan.programs, as the verifier gives it.
// Every lane provides for limits.max_sequences sequences, and so does every device of a lane that
// groups its sequences: pages are numbered over all of them, so a device has room for each page,
// whichever group fills it.
MemoryTable MemoryNeeds(const Plan& plan, const std::vector<ProgramInfo>& programs,
                        const BlockGraph& graph, const Rig& rig, const PlanLimits& limits);

// Of a row that does not fit, in a few words: "d0 needs 72.2 GB of 25.8 GB".
std::string ShortOfMemory(const MemoryRow& row);

// "" when every row fits; else which device lacks how much, in a line, and in two more what it
// needs and the first block in chain order that does not fit beside what comes before it.
std::string WhatDoesNotFit(const Plan& plan, const std::vector<ProgramInfo>& programs,
                           const BlockGraph& graph, const Rig& rig, const PlanLimits& limits);

}  // namespace tandem
