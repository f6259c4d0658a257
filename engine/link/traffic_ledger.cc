#include "engine/link/traffic_ledger.h"

namespace tandem {

void TrafficLedger::BeginStep(ProgramKind phase) {
  phase_ = phase;
  rows_.clear();
  op_begin_ = 0;
}

void TrafficLedger::BeginOp(uint32_t op, OpKind kind, BlockId block, WireType wire) {
  current_ = HopRow{.phase = phase_, .block = block, .op = op, .kind = kind, .wire = wire};
  op_begin_ = rows_.size();
}

void TrafficLedger::Book(DeviceId src, DeviceId dst, PathKind path, Bytes bytes) {
  if (bytes.value == 0) return;
  for (size_t i = op_begin_; i < rows_.size(); ++i) {
    HopRow& row = rows_[i];
    if (row.src == src && row.dst == dst && row.path == path) {
      row.bytes += bytes;
      return;
    }
  }
  HopRow row = current_;
  row.src = src;
  row.dst = dst;
  row.path = path;
  row.bytes = bytes;
  rows_.push_back(row);
}

void TrafficLedger::BookAgain(std::span<const HopRow> rows) {
  for (const HopRow& before : rows) {
    HopRow& row = rows_.emplace_back(before);
    row.start = row.end = row.exposed = Nanos{0};
  }
  op_begin_ = rows_.size();
}

void TrafficLedger::SumInto(uint32_t step_rows, std::vector<TrafficRow>& out) const {
  out.clear();
  for (const HopRow& row : rows_) {
    TrafficRow* sum = nullptr;
    for (TrafficRow& have : out) {
      if (have.src == row.src && have.dst == row.dst && have.path == row.path) sum = &have;
    }
    if (sum == nullptr) {
      out.push_back(TrafficRow{.phase = phase_,
                               .src = row.src,
                               .dst = row.dst,
                               .path = row.path,
                               .bytes = {},
                               .rows = step_rows});
      sum = &out.back();
    }
    sum->bytes += row.bytes;
  }
}

Bytes TrafficLedger::BetweenDevices() const {
  Bytes total;
  for (const HopRow& row : rows_) {
    const bool staged = row.path == PathKind::kHostStaged;
    const bool direct = !row.src.IsHost() && !row.dst.IsHost();
    if (row.kind != OpKind::kSample && (direct || staged)) total += row.bytes;
  }
  return total;
}

}  // namespace tandem
