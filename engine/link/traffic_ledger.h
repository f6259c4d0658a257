// What moved: one row a hop of a step, with the bytes that the transport counted as it moved them.
// Formulas (engine/plan/cost.h) are checked against these rows, never the other way round.
//
// Belongs to one executor; not thread-safe. Rows live until the next step begins; their memory is
// kept, so a steady step allocates nothing.
//
//   ledger.BeginStep(ProgramKind::kDecode);
//   ledger.BeginOp(17, BlockId{4}, WireType::kF32);   // transports book from here on
//   for (const HopRow& row : ledger.rows()) ...
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/units.h"
#include "engine/plan/cost.h"
#include "engine/plan/plan.h"
#include "engine/rig/rig.h"

namespace tandem {

struct HopRow {
  ProgramKind phase = ProgramKind::kPrefill;
  BlockId block;
  uint32_t op = 0;  // index in the program
  OpKind kind = OpKind::kTransfer;
  DeviceId src, dst;
  PathKind path = PathKind::kLocal;
  WireType wire = WireType::kF32;
  Bytes bytes;
  Nanos start, end;  // of the op, from the step's start
  Nanos exposed;     // of that, the part some device's compute stood idle for
};

class TrafficLedger {
 public:
  void BeginStep(ProgramKind phase);
  // What follows is booked to this op.
  void BeginOp(uint32_t op, OpKind kind, BlockId block, WireType wire);
  // Pieces of one op between the same two ends over the same path make one row.
  void Book(DeviceId src, DeviceId dst, PathKind path, Bytes bytes);
  // Rows of a step before this one, whose like has moved once more.
  void BookAgain(std::span<const HopRow> rows);

  // The op that is booked to: its index in the program.
  uint32_t op() const { return current_.op; }

  std::span<const HopRow> rows() const { return rows_; }
  std::span<HopRow> rows() { return rows_; }
  // The rows summed per (src, dst, path), in order of first appearance; `step_rows` is the step's
  // token count.
  void SumInto(uint32_t step_rows, std::vector<TrafficRow>& out) const;
  // Bytes of movements between devices, both hops of a staged one; weights from the host and token
  // ids to it are left out.
  Bytes BetweenDevices() const;

 private:
  ProgramKind phase_ = ProgramKind::kPrefill;
  HopRow current_;
  size_t op_begin_ = 0;  // first row of the current op
  std::vector<HopRow> rows_;
};

}  // namespace tandem
