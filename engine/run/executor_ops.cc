// The ops that compute. See executor.h.
#include <algorithm>
#include <array>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/run/executor.h"

namespace tandem {
namespace {

bool IsMlp(const Block& block) { return block.kind == BlockKind::kMlp; }

// The part of `slice` that belongs to elements [begin, end) of `count` output rows or input columns
// an element: rows when the matrix is cut by rows, columns when by columns.
MatrixSlice RowsOf(const PackedMatrix& w, uint64_t begin, uint64_t end) {
  return MatrixSlice{begin, end, w.slice.col_begin, w.slice.col_end};
}
MatrixSlice ColsOf(const PackedMatrix& w, uint64_t begin, uint64_t end) {
  return MatrixSlice{w.slice.row_begin, w.slice.row_end, begin, end};
}

}  // namespace

void Executor::Product(Ops& ops, const float* x, uint64_t rows, std::span<MatMulTask> tasks,
                       Int8Parts parts, Scratch& scratch) {
  const uint64_t cols = tasks[0].slice.cols();
  auto* prepared = scratch.Take<std::byte>(ops.PreparedBytes(rows, cols));
  // Tasks whose weights meet the same form of the rows share a preparation and a parallel region;
  // those that meet f32 go with any.
  const ActivationType activations = ops.activations();
  const auto form_of = [&](const MatMulTask& t) { return FormFor(activations, t.w->type); };
  while (!tasks.empty()) {
    const auto narrow = std::find_if(tasks.begin(), tasks.end(), [&](const MatMulTask& t) {
      return form_of(t) != RowForm::kF32;
    });
    const MatMulTask& first = narrow == tasks.end() ? tasks[0] : *narrow;
    const DType type = first.w->type;
    const RowForm form = form_of(first);
    const auto rest = std::partition(tasks.begin(), tasks.end(), [&](const MatMulTask& t) {
      return form_of(t) == form || form_of(t) == RowForm::kF32;
    });
    const auto served = static_cast<size_t>(rest - tasks.begin());
    ops.MatMul(ops.PrepareRows(x, rows, cols, type, parts, prepared), tasks.first(served));
    tasks = tasks.subspan(served);
  }
}

void Executor::RunBlock(const CompiledOp& op) {
  const Microbatch& mb = microbatches_[op.op->microbatch];
  ValueMemory& out = Value(op.op->out[0]);
  const bool head = BlockOf(*op.op).kind == BlockKind::kHead;
  Ops& ops = OpsOf(op);
  if (op.pieces.empty()) {
    ops.Zero(out.data, out.elems());
    return;
  }
  room_ = kernel_rooms_[DeviceIndex(op.op->devices[0])];
  // Partial outputs need a second Y beside the first.
  const bool adds = op.pieces.size() > 1 && !head;
  float* part = adds ? TakeBack<float>(room_, out.elems()) : nullptr;
  RunPieceOf(op, op.pieces[0], mb, out.data, out.width);
  if (op.pieces.size() == 1) return;
  if (head) {
    // Each piece writes its own columns.
    for (size_t i = 1; i < op.pieces.size(); ++i) {
      const uint32_t column = op.pieces[i].begin - op.pieces[0].begin;
      RunPieceOf(op, op.pieces[i], mb, out.data + column, out.width);
    }
    return;
  }
  // They add up in order of elements.
  for (size_t i = 1; i < op.pieces.size(); ++i) {
    RunPieceOf(op, op.pieces[i], mb, part, out.width);
    ops.Add(out.data, part, out.elems(), out.data);
  }
}

void Executor::RunPieceOf(const CompiledOp& op, const RunPiece& piece, const Microbatch& mb,
                          float* y, uint32_t y_width) {
  const Block& block = BlockOf(*op.op);
  const uint64_t hidden = graph_.config.hidden;
  switch (block.kind) {
    case BlockKind::kEmbed:
      OpsOf(op).Embed(piece.shard->matrices[0], MatrixSlice{piece.begin, piece.end, 0, hidden},
                      mb.ids, y);
      return;
    case BlockKind::kAttention:
      RunAttention(op, piece, mb, Value(op.op->in[0]).data, y);
      return;
    case BlockKind::kMlp:
      RunMlp(op, piece, mb, Value(op.op->in[0]).data, y);
      return;
    case BlockKind::kHead: {
      const ValueMemory& n = Value(op.op->in[0]);
      RunHead(op, piece, n.data, n.rows, y, y_width);
      return;
    }
    case BlockKind::kMoe:
      break;
  }
  Fail(ErrorCode::kUnsupported, "executor: blocks of experts cannot be run");
}

void Executor::RunAttention(const CompiledOp& op, const RunPiece& piece, const Microbatch& mb,
                            const float* n, float* y) {
  const ModelConfig& config = graph_.config;
  const uint64_t kv_heads = piece.end - piece.begin;
  const uint64_t q_cols = kv_heads * config.group() * config.head_dim;
  const uint64_t kv_cols = kv_heads * config.head_dim;
  const Ops& ops = OpsOf(op);
  auto bytes = [&](uint64_t rows) {
    // q and attention out for the piece, and once more for a KV piece where there are several.
    const uint64_t copies = piece.kv.size() > 1 ? 3 : 2;
    return copies * Scratch::Room(4 * rows * q_cols) + 2 * Scratch::Room(4 * rows * kv_cols) +
           Scratch::Room(ops.PreparedBytes(rows, config.hidden)) +
           Scratch::Room(ops.PreparedBytes(rows, q_cols));
  };
  const uint32_t most = RowsThatFit(mb.rows(), room_.size, bytes);
  if (most == mb.rows()) {
    AttentionRows(op, piece, n, mb.sequences, mb.rows(), y);
    return;
  }
  // Too many rows for the scratch: several passes, in order, since later rows attend to earlier
  // ones.
  for (uint32_t first = 0; first < mb.rows(); first += most) {
    const uint32_t rows = std::min(most, mb.rows() - first);
    pass_sequences_.clear();
    for (const SequenceRows& sequence : mb.sequences) {
      const uint32_t begin = std::max(first, sequence.first_row);
      const uint32_t end = std::min(first + rows, sequence.first_row + sequence.n_rows);
      if (begin >= end) continue;
      pass_sequences_.push_back(SequenceRows{.first_row = begin - first,
                                             .n_rows = end - begin,
                                             .start = sequence.start + begin - sequence.first_row,
                                             .pages = sequence.pages});
    }
    const uint64_t offset = uint64_t{first} * config.hidden;
    AttentionRows(op, piece, n + offset, pass_sequences_, rows, y + offset);
  }
}

void Executor::AttentionRows(const CompiledOp& op, const RunPiece& piece, const float* n,
                             std::span<const SequenceRows> sequences, uint32_t rows, float* y) {
  const ModelConfig& config = graph_.config;
  const Block& block = BlockOf(*op.op);
  const uint64_t head_dim = config.head_dim;
  const uint64_t q_per_kv = config.group() * head_dim;
  Ops& ops = OpsOf(op);
  const auto& w = piece.shard->matrices;
  const uint64_t all_q_cols = (piece.end - piece.begin) * q_per_kv;
  Scratch scratch(room_);
  auto* attended = scratch.Take<float>(rows * all_q_cols);

  for (const KvPiece& kv : piece.kv) {
    const uint64_t begin = block.ElemBegin(kv.units);
    const uint64_t end = block.ElemEnd(kv.units);
    const uint64_t q_cols = (end - begin) * q_per_kv;
    const uint64_t kv_cols = (end - begin) * head_dim;
    Scratch inner = scratch;
    auto* q = inner.Take<float>(rows * q_cols);
    auto* k = inner.Take<float>(rows * kv_cols);
    auto* v = inner.Take<float>(rows * kv_cols);
    float* out = piece.kv.size() == 1 ? attended : inner.Take<float>(rows * q_cols);
    std::array<MatMulTask, 3> tasks{
        MatMulTask{&w[0], RowsOf(w[0], begin * q_per_kv, end * q_per_kv), q, q_cols},
        MatMulTask{&w[1], RowsOf(w[1], begin * head_dim, end * head_dim), k, kv_cols},
        MatMulTask{&w[2], RowsOf(w[2], begin * head_dim, end * head_dim), v, kv_cols}};
    Product(ops, n, rows, tasks, Int8Parts::kOne, inner);
    FinishHeads(op, piece, kv, rows, q, k, v);
    const auto q_heads = static_cast<uint32_t>((end - begin) * config.group());
    ops.RopeAndStore(q, k, v, q_heads, rope_, sequences, kv.view);
    KvView view = kv.view;
    view.room = inner.rest();
    view.room_bytes = inner.left();
    ops.Attention(q, q_heads, config.sliding_window, sequences, view, out);
    if (piece.kv.size() == 1) continue;
    const uint64_t column = (begin - piece.begin) * q_per_kv;
    ops.CopyRows(out, q_cols, attended + column, all_q_cols, q_cols, rows);
  }
  std::array<MatMulTask, 1> task{MatMulTask{
      &w[3], ColsOf(w[3], piece.begin * q_per_kv, piece.end * q_per_kv), y, config.hidden}};
  Product(ops, attended, rows, task, Int8Parts::kOne, scratch);
}

// Biases, then the norms of heads: what comes between the products and the rotation.
// q (rows, q_cols), k and v (rows, kv_cols) of one KV piece.
void Executor::FinishHeads(const CompiledOp& op, const RunPiece& piece, const KvPiece& kv,
                           uint32_t rows, float* q, float* k, float* v) {
  const ModelConfig& config = graph_.config;
  const Block& block = BlockOf(*op.op);
  const BlockShard& shard = *piece.shard;
  Ops& ops = OpsOf(op);
  const uint64_t first = block.ElemBegin(kv.units) - shard.begin;
  const uint64_t heads = block.ElemCount(kv.units);
  if (shard.n_biases > 0) {
    const uint64_t width = config.head_dim;
    const uint64_t q_width = config.group() * width;
    ops.AddBias(shard.biases[0].data + first * q_width, rows, heads * q_width, q);
    ops.AddBias(shard.biases[1].data + first * width, rows, heads * width, k);
    ops.AddBias(shard.biases[2].data + first * width, rows, heads * width, v);
  }
  if (op.head_norms.q != nullptr) {
    ops.RmsNorm(q, op.head_norms.q, config.norm_eps, rows * heads * config.group(), config.head_dim,
                q);
    ops.RmsNorm(k, op.head_norms.k, config.norm_eps, rows * heads, config.head_dim, k);
  }
}

void Executor::RunMlp(const CompiledOp& op, const RunPiece& piece, const Microbatch& mb,
                      const float* n, float* y) {
  const Block& block = BlockOf(*op.op);
  Check(IsMlp(block), "executor: an MLP block");
  const uint64_t hidden = graph_.config.hidden;
  const uint64_t begin = uint64_t{piece.begin} * block.columns;
  const uint64_t end = uint64_t{piece.end} * block.columns;
  const uint64_t columns = end - begin;
  const auto& w = piece.shard->matrices;
  Ops& ops = OpsOf(op);
  auto bytes = [&](uint64_t rows) {
    return 2 * Scratch::Room(4 * rows * columns) + Scratch::Room(ops.PreparedBytes(rows, hidden)) +
           Scratch::Room(ops.PreparedBytes(rows, columns));
  };
  const uint32_t most = RowsThatFit(mb.rows(), room_.size, bytes);
  for (uint32_t first = 0; first < mb.rows(); first += most) {
    const uint32_t rows = std::min(most, mb.rows() - first);
    Scratch scratch(room_);
    auto* gate = scratch.Take<float>(rows * columns);
    auto* up = scratch.Take<float>(rows * columns);
    std::array<MatMulTask, 2> in{MatMulTask{&w[0], RowsOf(w[0], begin, end), gate, columns},
                                 MatMulTask{&w[1], RowsOf(w[1], begin, end), up, columns}};
    Product(ops, n + first * hidden, rows, in, Int8Parts::kOne, scratch);
    const MatMulTask out{&w[2], ColsOf(w[2], begin, end), y + first * hidden, hidden};
    auto* prepared = scratch.Take<std::byte>(ops.PreparedBytes(rows, columns));
    ops.MatMul(ops.PrepareSwiGlu(gate, up, rows, columns, w[2].type, kDownInputParts, prepared),
               {&out, 1});
  }
}

void Executor::RunHead(const CompiledOp& op, const RunPiece& piece, const float* n, uint32_t rows,
                       float* y, uint32_t y_width) {
  const uint64_t hidden = graph_.config.hidden;
  const auto& w = piece.shard->matrices;
  Ops& ops = OpsOf(op);
  const uint32_t most = RowsThatFit(rows, room_.size, [&](uint64_t count) {
    return Scratch::Room(ops.PreparedBytes(count, hidden));
  });
  for (uint32_t first = 0; first < rows; first += most) {
    const uint32_t count = std::min(most, rows - first);
    Scratch scratch(room_);
    std::array<MatMulTask, 1> task{MatMulTask{&w[0], RowsOf(w[0], piece.begin, piece.end),
                                              y + uint64_t{first} * y_width, y_width}};
    Product(ops, n + first * hidden, count, task, Int8Parts::kOne, scratch);
  }
}

void Executor::RunNorm(const CompiledOp& op) {
  const ValueMemory& x = Value(op.op->in[0]);
  const ValueMemory& out = Value(op.op->out[0]);
  const uint64_t hidden = graph_.config.hidden;
  const float eps = graph_.config.norm_eps;
  Ops& ops = OpsOf(op);
  if (op.op->block != graph_.head()) {
    ops.RmsNorm(x.data, op.norm, eps, out.rows, hidden, out.data);
    return;
  }
  // HEAD sees the sampled rows alone.
  float* y = out.data;
  for (const RowSpan& span : microbatches_[op.op->microbatch].sampled_spans) {
    ops.RmsNorm(x.data + span.first * hidden, op.norm, eps, span.count, hidden, y);
    y += span.count * hidden;
  }
}

void Executor::RunAdd(const CompiledOp& op) {
  const ValueMemory& x = Value(op.op->in[0]);
  const ValueMemory& y = Value(op.op->in[1]);
  const ValueMemory& out = Value(op.op->out[0]);
  OpsOf(op).Add(x.data, y.data, out.elems(), out.data);
}

void Executor::RunSample(const CompiledOp& op, LogitsSink& sink) {
  const Microbatch& mb = microbatches_[op.op->microbatch];
  const ValueMemory& logits = Value(op.op->in[0]);
  const DeviceId device = op.op->devices[0];
  Scratch scratch(kernel_rooms_[DeviceIndex(device)]);
  const uint64_t most = std::min<uint64_t>(scratch.left(), host_ids_.size()) / sizeof(int32_t);
  uint64_t done = 0;
  while (done < mb.sampled.size()) {
    const uint64_t count = std::min<uint64_t>(most, mb.sampled.size() - done);
    auto* ids = reinterpret_cast<int32_t*>(scratch.rest());
    sink.OnLogits(std::span(mb.sampled).subspan(done, count), logits.data + done * logits.width,
                  std::span(ids, count));
    op.transport->Copy(CopyTask{.src = device,
                                .from = reinterpret_cast<const std::byte*>(ids),
                                .dst = kHost,
                                .to = host_ids_.data(),
                                .row_bytes = count * sizeof(int32_t)},
                       ledger_);
    done += count;
  }
}

}  // namespace tandem
