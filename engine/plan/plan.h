// The plan: where every weight shard lives, and one global list of operations a program, every
// movement explicit. Data only; engine/plan/verifier.h says which plans are right, pricer.h what
// they cost, text.h how they are written down.
//
// A value is (device, microbatch, meaning, unit coverage, token range); ids are dense within a
// program and each is assigned once. One list order; every operand is defined earlier; a movement is
// one op touching several devices: that is why a plan cannot deadlock.
//
// Block b = 1..H (H = HEAD) chain:  N = NORM_b(X);  Y = RUN_b(N);  X' = ADD(X, full Y).
// EMBED is run from token ids and gives X (a partial X while its units are split: reduced like a Y).
// HEAD's RUN gives logits over its units; SAMPLE needs them all. The NORM of HEAD keeps only the rows
// to be sampled, so HEAD and SAMPLE see only those.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/units.h"
#include "engine/rig/rig.h"

namespace tandem {

enum class OpKind : uint8_t {
  kRun,            // in: N of the block (EMBED: none)      out: Y over `units` (EMBED: X partial)
  kNorm,           // in: X                                 out: N for `block`
  kAdd,            // in: X, full Y of `block`              out: next X
  kSample,         // in: logits covering the vocabulary    out: none; ids go to the host
  kAllReduce,      // in: one partial a device, disjoint, covering all units; out: full on each
  kReduceScatter,  // in: as kAllReduce                     out: token shard i on device i, full
  kAllGather,      // in: token shards, or logits over disjoint units, one a device; out: whole on each
  kTransfer,       // in: a value on `device`               out: the same on `peer`
  kFetch,          // weights of (block, units) from `device` (a device or the host) into `slot`
  kKvMove,         // KV of (block, units, microbatch) moves from `device` to `peer`
  kReservedAllToAll,
  kReservedKvShard,
};
const char* ToString(OpKind kind);

enum class ProgramKind : uint8_t { kPrefill, kDecode, kReservedDraft, kReservedVerify };
const char* ToString(ProgramKind kind);  // "prefill", "decode"

// How a step's rows become microbatches: contiguous row ranges cut at floor(rows * i / M), or
// sequences grouped by slot number modulo M.
enum class MicrobatchKind : uint8_t { kNone, kByChunk, kBySequence };
const char* ToString(MicrobatchKind kind);  // "none", "by_chunk", "by_sequence"

enum class QueueKind : uint8_t { kCompute, kCopyIn, kCopyOut, kComm };
const char* ToString(QueueKind kind);

// How an all-reduce over D devices of N elements moves them. One-shot: every rank sends its whole
// partial to every other (N a directed pair). Two-shot: a reduce-scatter and an all-gather over shards
// cut at floor(N * i / D) (about 2N/D a directed pair). Both add partials in rank order.
enum class Algorithm : uint8_t { kNone, kOneShot, kTwoShot };
const char* ToString(Algorithm algorithm);  // "none", "one_shot", "two_shot"

// Element type of activations on a link.
enum class WireType : uint8_t { kF32, kBf16, kQ8 };
const char* ToString(WireType wire);  // "f32", "bf16", "q8"
std::optional<WireType> WireTypeFromName(std::string_view name);
// Bytes of n elements on the wire: 4n, 2n, or 34 a block of 32 (the last one may be short).
Bytes WireBytes(WireType wire, uint64_t n);

using ValueId = uint32_t;
using SlotId = uint32_t;

struct Op {
  OpKind kind = OpKind::kRun;
  std::vector<DeviceId> devices;  // RUN, NORM, ADD, SAMPLE: one. TRANSFER, KV_MOVE: {from, to}.
                                  // FETCH: {source (may be kHost), the slot's device}.
                                  // Collectives: the ranks, in the order of `in`.
  uint32_t microbatch = 0;
  BlockId block;                  // RUN, NORM, ADD, FETCH, KV_MOVE
  UnitRange units;                // RUN, FETCH, KV_MOVE
  std::optional<SlotId> slot;     // FETCH
  PathKind path = PathKind::kAuto;       // movements
  Algorithm algorithm = Algorithm::kNone;  // ALL_REDUCE
  std::optional<QueueKind> queue;        // overrides the kind's own queue
  std::vector<ValueId> in;
  std::vector<ValueId> out;
  uint32_t plugin_call = 0;       // number of the host call that made it; 0 when unknown

  bool operator==(const Op&) const = default;
};

// The queue an op occupies on each of its devices: RUN, NORM, ADD, SAMPLE compute; FETCH copy-in;
// KV_MOVE copy-out at the source and copy-in at the destination; TRANSFER and collectives comm.
QueueKind DefaultQueue(OpKind kind);

// Weights of some units resident on a device, or in the host's memory (kHost). The block's norm
// vector is implied on every device that applies it. With a tied embedding, HEAD and EMBED places on
// one device share their bytes where their units overlap.
struct Place {
  BlockId block;
  UnitRange units;
  DeviceId device;
  bool operator==(const Place&) const = default;
};

// Staging memory for fetched weights. Its content is unknown when a program starts.
struct Slot {
  DeviceId device;
  Bytes bytes;
  bool operator==(const Slot&) const = default;
};

struct Program {
  ProgramKind kind = ProgramKind::kPrefill;
  uint32_t lane = 0;
  uint32_t microbatches = 1;
  MicrobatchKind microbatch_kind = MicrobatchKind::kNone;
  std::vector<Op> ops;
  bool operator==(const Program&) const = default;
};

struct Knob {
  std::string key;
  std::string value;
  bool operator==(const Knob&) const = default;
};

struct Plan {
  std::string plugin;          // who wrote it: "layer_split"
  std::string plugin_version;
  uint32_t n_devices = 1;
  uint32_t n_lanes = 1;
  WireType wire = WireType::kF32;
  std::vector<Knob> knobs;     // values the plugin was given, defaults included, sorted by key
  std::vector<Place> places;
  std::vector<Slot> slots;
  std::vector<Program> programs;  // a PREFILL and a DECODE for each lane

  const Program& program(ProgramKind kind, uint32_t lane) const;  // Check-fails when absent
  bool operator==(const Plan&) const = default;
};

// sha256 of the plan's text without plugin name, version, knobs and call numbers: equal plans hash
// equal whoever wrote them.
std::string PlanHash(const Plan& plan);

// What a plan must provide for: the largest step and the memory it is checked against.
struct PlanLimits {
  uint32_t max_step_tokens = 512;  // rows of the largest step (the prefill chunk)
  uint32_t max_sequences = 1;      // slots (-np)
  uint32_t context = 2048;         // tokens of KV in all, over all slots (-c)
};

}  // namespace tandem
