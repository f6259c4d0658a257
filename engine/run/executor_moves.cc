// The ops that move. See executor.h.
#include <algorithm>

#include "engine/base/check.h"
#include "engine/run/executor.h"

namespace tandem {
namespace {

constexpr uint64_t kHalf = 2;  // bytes of an f16

}  // namespace

CollectiveContext Executor::Context(const CompiledOp& op) {
  uint64_t scratch = UINT64_MAX;
  for (DeviceId device : op.op->devices) {
    scratch = std::min(scratch, comm_rooms_[DeviceIndex(device)].size);
  }
  // On the CPU, pieces that stay in the cache between their copy and their use.
  constexpr uint64_t kEnough = uint64_t{1} << 18;
  if (order_ == nullptr) scratch = std::min(scratch, kEnough);
  return CollectiveContext{.transport = op.transport,
                           .ledger = &ledger_,
                           .wire = setup_.plan->wire,
                           .scratch_bytes = scratch};
}

CollectiveRank Executor::RankOf(const CompiledOp& op, size_t i) {
  CollectiveRank rank = EndOf(op, i);
  rank.in = Value(op.op->in[i]).data;
  rank.out = Value(op.op->out[i]).data;
  return rank;
}

CollectiveRank Executor::EndOf(const CompiledOp& op, size_t i) {
  const DeviceId device = op.op->devices[i];
  return CollectiveRank{.device = device,
                        .scratch = comm_rooms_[DeviceIndex(device)].data,
                        .queue = QueueOf(op, i),
                        .wire_ops = &setup_.backend->wire_ops(DeviceIndex(device))};
}

void Executor::Reduce(const CompiledOp& op) {
  const size_t count = op.op->devices.size();
  ranks_.clear();
  for (size_t i = 0; i < count; ++i) ranks_.push_back(RankOf(op, i));
  const ValueMemory& whole = Value(op.op->in[0]);
  if (op.op->kind == OpKind::kAllReduce) {
    AllReduce(Context(op), op.op->algorithm, ranks_, whole.elems());
    return;
  }
  cuts_.clear();
  for (uint64_t i = 0; i <= count; ++i) cuts_.push_back(whole.rows * i / count * whole.width);
  ReduceScatter(Context(op), ranks_, cuts_);
}

void Executor::Gather(const CompiledOp& op) {
  const size_t count = op.op->devices.size();
  ranks_.clear();
  for (size_t i = 0; i < count; ++i) ranks_.push_back(RankOf(op, i));
  const ValueMemory& whole = Value(op.op->out[0]);
  if (InfoOf(op.op->out[0]).meaning == Meaning::kLogits) {
    columns_.clear();
    for (ValueId in : op.op->in) {
      const ValueInfo& part = InfoOf(in);
      columns_.push_back(ColumnShard{graph_.at(part.block).ElemBegin(part.units), Value(in).width});
    }
    AllGatherColumns(Context(op), ranks_, columns_, whole.rows, whole.width);
    return;
  }
  cuts_.assign(1, 0);
  for (ValueId in : op.op->in) cuts_.push_back(cuts_.back() + Value(in).elems());
  Check(cuts_.back() == whole.elems(), "all_gather: the shards make the whole");
  AllGather(Context(op), ranks_, cuts_);
}

void Executor::Transfer(const CompiledOp& op) {
  const ValueMemory& value = Value(op.op->in[0]);
  CollectiveRank src = EndOf(op, 0);
  CollectiveRank dst = EndOf(op, 1);
  src.in = value.data;
  dst.out = Value(op.op->out[0]).data;
  SendActivations(Context(op), src, dst, value.elems());
}

void Executor::Fetch(const CompiledOp& op) {
  if (ahead_ == nullptr || !ahead_->Take(*op.op->slot)) {
    CopyWeights(op, ledger_);
    return;
  }
  // The bytes have been under way since the step before.
  const Bytes bytes{op.fetch_from->stored_bytes};
  if (!op.fetch_from->page_locked) ledger_.Book(kHost, kHost, PathKind::kLocal, bytes);
  ledger_.Book(op.op->devices[0], op.op->devices[1], op.transport->path(), bytes);
}

void Executor::CopyWeights(const CompiledOp& op, TrafficLedger& ledger) {
  const BlockShard& from = *op.fetch_from;
  const BlockShard& to = *op.fetch_to;
  Check(from.bytes == to.bytes, "fetch: both ends are packed alike");
  const CopyTask task{.src = op.op->devices[0],
                      .from = from.data,
                      .dst = op.op->devices[1],
                      .to = to.data,
                      .row_bytes = from.bytes,
                      .padding_bytes = from.bytes - from.stored_bytes,
                      .src_queue = QueueOf(op, 0),
                      .dst_queue = QueueOf(op, 1)};
  if (from.page_locked) {
    op.transport->Copy(task, ledger);
  } else {
    rings_[DeviceIndex(op.op->devices[1])]->Copy(task, op.transport->path(), ledger);
  }
}

// The rows that this step appended, K and V, page by page: each head's as one run, or each column
// of its keys.
void Executor::MoveKv(const CompiledOp& op) {
  const Microbatch& mb = microbatches_[op.op->microbatch];
  Check(op.kv_from.size() == op.kv_to.size(), "kv_move: the same pieces at both ends");
  const bool by_column = ops_[DeviceIndex(op.op->devices[0])]->key_order() == KeyOrder::kByColumn;
  for (size_t p = 0; p < op.kv_from.size(); ++p) {
    const KvView& from = op.kv_from[p].view;
    const KvView& to = op.kv_to[p].view;
    const uint64_t token_bytes = from.head_dim * kHalf;
    const uint64_t head_bytes = token_bytes * kPageTokens;
    for (const SequenceRows& sequence : mb.sequences) {
      const uint32_t end = sequence.start + sequence.n_rows;
      for (uint32_t at = sequence.start; at < end;) {
        const uint32_t page = at / kPageTokens;
        const uint32_t first = at % kPageTokens;
        const uint32_t count = std::min(end - at, kPageTokens - first);
        const auto id = static_cast<uint64_t>(sequence.pages[page]);
        // `runs` of `row_bytes` each, `stride` apart, from `offset` into the page on.
        const auto copy = [&](uint64_t offset, uint64_t row_bytes, uint64_t runs, uint64_t stride) {
          op.transport->Copy(CopyTask{.src = op.op->devices[0],
                                      .from = from.base + id * from.stride + offset,
                                      .dst = op.op->devices[1],
                                      .to = to.base + id * to.stride + offset,
                                      .row_bytes = row_bytes,
                                      .rows = runs,
                                      .src_stride = stride,
                                      .dst_stride = stride,
                                      .src_queue = QueueOf(op, 0),
                                      .dst_queue = QueueOf(op, 1)},
                             ledger_);
        };
        const uint64_t heads = from.kv_heads, rows_at = first * token_bytes;
        if (by_column) {
          copy(first * kHalf, count * kHalf, heads * from.head_dim, kPageTokens * kHalf);
          copy(heads * head_bytes + rows_at, count * token_bytes, heads, head_bytes);
        } else {
          copy(rows_at, count * token_bytes, 2 * heads, head_bytes);
        }
        at += count;
      }
    }
  }
}

}  // namespace tandem
