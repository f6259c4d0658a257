// Collectives that a transport carries out itself, in place of the copies and additions that
// collectives.cc would make of it: a kernel on each device that sends its partial, waits for the
// others' and adds. The results are those of collectives.cc to the bit (partials added in rank
// order in f32; with a rounded wire every rank uses the rounded form of every partial, its own
// included), and the same bytes are booked.
//
// Collectives ask it by size; what it does not take is done by copies.
//
// Of rows, an all-reduce may take the ops behind it along, an addition and a norm, where nothing
// else wants its own result: to the bits of Ops::AddNorm, or Ops::Add, after it.
//
//   if (DirectCollectives* direct = transport.direct(); direct && direct->TakesSend(wire, n)) ...
#pragma once

#include <cstdint>
#include <span>

#include "engine/base/units.h"
#include "engine/device/queue.h"
#include "engine/link/traffic_ledger.h"
#include "engine/plan/plan.h"

namespace tandem {

// A device's part in a collective: n values it gives, n values it gets; null where it has none.
struct DirectEnd {
  DeviceId device;
  const float* in = nullptr;
  float* out = nullptr;
  DeviceQueue* queue = nullptr;
};

// What all ranks of such an all-reduce share.
struct DirectRowsShape {
  uint64_t rows = 0;
  uint64_t width = 0;
  float eps = 0.0f;
  uint64_t elems() const { return rows * width; }
};
// What a rank makes of the rows' sum. `sum` and `norm` may each lie exactly where an input does.
struct DirectRows {
  const float* residual = nullptr;  // (rows, width)
  float* sum = nullptr;             // (rows, width): residual + what was reduced
  const float* weights = nullptr;   // (width) of the norm; null: none is wanted
  float* norm = nullptr;            // (rows, width): the norm of `sum`
};

class DirectCollectives {
 public:
  virtual ~DirectCollectives() = default;

  // One-shot all-reduces of n values over `ranks` devices.
  virtual bool TakesAllReduce(WireType wire, uint64_t n, size_t ranks) const = 0;
  // `ranks` in rank order. Asks each device's queue; nothing waits here.
  virtual void AllReduce(WireType wire, std::span<const DirectEnd> ranks, uint64_t n,
                         TrafficLedger& ledger) = 0;

  // The same of rows, with what follows: `outs` by rank, of which `out` in `ranks` is not written.
  virtual bool TakesRows(WireType, const DirectRowsShape&, size_t) const { return false; }
  virtual void AllReduceRows(WireType wire, std::span<const DirectEnd> ranks,
                             std::span<const DirectRows> outs, const DirectRowsShape& shape,
                             TrafficLedger& ledger) = 0;

  virtual bool TakesSend(WireType wire, uint64_t n) const = 0;
  virtual void Send(WireType wire, const DirectEnd& src, const DirectEnd& dst, uint64_t n,
                    TrafficLedger& ledger) = 0;
};

}  // namespace tandem
