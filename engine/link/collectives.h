// Collectives over any number of devices, made of point-to-point copies: all-reduce (one-shot and
// two-shot), reduce-scatter, all-gather. Partials are added in rank order in f32 on every rank, and
// with a rounded wire every rank uses the rounded form of every partial, its own included: all
// ranks end with identical bits, and so do the two algorithms on an f32 wire.
//
// A message is one contiguous range of elements; it crosses in pieces that fit the scratch, cut at
// wire blocks, so that the bytes and the values are those of the whole message. On a q8 wire the
// blocks of a message start at its beginning: where shards are cut depends on the number of rows,
// so only the f32 and bf16 wires are independent of the batch under two_shot.
//
// A transport that has collectives of its own (direct_collectives.h) is asked first; what it takes
// it does to the same bits.
//
// Messages that do not depend on one another cross together (Transport::CopyAll), so that both
// directions of a link are in use.
//
// One thread; `in` and `out` of a rank never overlap. On devices with queues the work is put in
// each rank's queue and done in its order; a rank's `in` may be overwritten by later work of that
// queue.
#pragma once

#include <cstdint>
#include <span>

#include "engine/base/units.h"
#include "engine/link/traffic_ledger.h"
#include "engine/link/transport.h"
#include "engine/link/wire_ops.h"
#include "engine/plan/plan.h"

namespace tandem {

struct CollectiveRank {
  DeviceId device;
  const float* in = nullptr;
  float* out = nullptr;
  std::byte* scratch = nullptr;        // on the device
  DeviceQueue* queue = nullptr;        // of the device; null where it has none
  WireOps* wire_ops = &HostWireOps();  // the device's
};

// What all collectives of one op share.
struct CollectiveContext {
  Transport* transport = nullptr;
  TrafficLedger* ledger = nullptr;
  WireType wire = WireType::kF32;
  uint64_t scratch_bytes = 0;  // of each rank; at least MinCollectiveScratch(ranks)
};

uint64_t MinCollectiveScratch(size_t ranks);

// in (n) on each rank -> out (n) = the sum, the same on each. Two-shot cuts shards at
// floor(n * i / ranks).
void AllReduce(const CollectiveContext& context, Algorithm algorithm,
               std::span<const CollectiveRank> ranks, uint64_t n);

// in (cuts.back()) on each rank -> out of rank i = elements [cuts[i], cuts[i+1]) of the sum.
void ReduceScatter(const CollectiveContext& context, std::span<const CollectiveRank> ranks,
                   std::span<const uint64_t> cuts);

// in of rank i = elements [cuts[i], cuts[i+1]) -> out (cuts.back()) on each rank.
void AllGather(const CollectiveContext& context, std::span<const CollectiveRank> ranks,
               std::span<const uint64_t> cuts);

// in of rank i = (rows, cuts[i+1] - cuts[i]) -> out (rows, out_width) on each rank, rank i's
// columns beginning at cuts[i].
struct ColumnShard {
  uint64_t begin = 0;
  uint64_t width = 0;
};
void AllGatherColumns(const CollectiveContext& context, std::span<const CollectiveRank> ranks,
                      std::span<const ColumnShard> shards, uint64_t rows, uint64_t out_width);

// One message: from (n) on one device -> to (n) on another, as the wire rounds it.
void SendActivations(const CollectiveContext& context, const CollectiveRank& src,
                     const CollectiveRank& dst, uint64_t n);

}  // namespace tandem
