#include "kernels/queued_ops.h"

#include <utility>

namespace tandem {

OwnSequences::OwnSequences(std::span<const SequenceRows> sequences)
    : rows_(sequences.begin(), sequences.end()) {
  for (const SequenceRows& s : sequences) {
    const uint32_t count = (s.start + s.n_rows + kPageTokens - 1) / kPageTokens;
    pages_.emplace_back(s.pages, s.pages + count);
  }
}

std::span<const SequenceRows> OwnSequences::Bind() {
  for (size_t i = 0; i < rows_.size(); ++i) rows_[i].pages = pages_[i].data();
  return rows_;
}

std::function<std::span<const int32_t>()> QueuedOps::IdsThen(std::span<const int32_t> ids) {
  return [own = std::vector<int32_t>(ids.begin(), ids.end())] {
    return std::span<const int32_t>(own);
  };
}

std::function<std::span<const SequenceRows>()> QueuedOps::SequencesThen(
    std::span<const SequenceRows> sequences) {
  return [own = std::make_shared<OwnSequences>(sequences)] { return own->Bind(); };
}

PreparedRows QueuedOps::PrepareRows(const float* x, uint64_t n, uint64_t cols, DType weight_type,
                                    Int8Parts parts, std::byte* scratch) {
  Ask([=, this] { inner_.PrepareRows(x, n, cols, weight_type, parts, scratch); });
  const RowForm form = FormFor(activations(), weight_type);
  return PreparedRows{.f32 = x,
                      .narrow = form == RowForm::kF32 ? nullptr : scratch,
                      .form = form,
                      .parts = form == RowForm::kInt8 ? parts : Int8Parts::kOne,
                      .n = n,
                      .cols = cols};
}

void QueuedOps::MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) {
  std::vector<PackedMatrix> weights;
  for (const MatMulTask& task : tasks) weights.push_back(*task.w);
  Ask([this, x, weights = std::move(weights),
       own = std::vector<MatMulTask>(tasks.begin(), tasks.end())]() mutable {
    for (size_t i = 0; i < own.size(); ++i) own[i].w = &weights[i];
    inner_.MatMul(x, own);
  });
}

void QueuedOps::Embed(const PackedMatrix& table, const MatrixSlice& slice,
                      std::span<const int32_t> ids, float* out) {
  Ask([=, this, own = IdsThen(ids)] { inner_.Embed(table, slice, own(), out); });
}

void QueuedOps::RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
                        float* y) {
  Ask([=, this] { inner_.RmsNorm(x, w, eps, n, hidden, y); });
}

void QueuedOps::Add(const float* x, const float* y, uint64_t n, float* out) {
  Ask([=, this] { inner_.Add(x, y, n, out); });
}

void QueuedOps::AddBias(const float* bias, uint64_t n, uint64_t width, float* y) {
  Ask([=, this] { inner_.AddBias(bias, n, width, y); });
}

void QueuedOps::SwiGlu(const float* gate, const float* up, uint64_t n, float* out) {
  Ask([=, this] { inner_.SwiGlu(gate, up, n, out); });
}

void QueuedOps::RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads,
                             const RopeParams& rope, std::span<const SequenceRows> sequences,
                             const KvView& kv) {
  Ask([=, this, own = SequencesThen(sequences),
       frequencies = std::vector<double>(rope.frequencies.begin(), rope.frequencies.end()),
       turn = rope]() mutable {
    turn.frequencies = frequencies;
    inner_.RopeAndStore(q, k, v, q_heads, turn, own(), kv);
  });
}

void QueuedOps::Attention(const float* q, uint32_t q_heads, uint32_t window,
                          std::span<const SequenceRows> sequences, const KvView& kv, float* out) {
  Ask([=, this, own = SequencesThen(sequences)] {
    inner_.Attention(q, q_heads, window, own(), kv, out);
  });
}

void QueuedOps::TopK(const float* x, uint64_t n, uint32_t width, uint32_t k, std::byte* scratch,
                     TopEntry* out) {
  Ask([=, this] { inner_.TopK(x, n, width, k, scratch, out); });
}

void QueuedOps::Zero(float* x, uint64_t n) {
  Ask([=, this] { inner_.Zero(x, n); });
}

void QueuedOps::CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
                         uint64_t width, uint64_t rows) {
  Ask([=, this] { inner_.CopyRows(from, from_stride, to, to_stride, width, rows); });
}

namespace {

struct Owned {
  std::unique_ptr<Ops> ops;
};

// The inner Ops are owned by a base that is made before the one that refers to them.
class OpsInQueue final : private Owned, public QueuedOps {
 public:
  OpsInQueue(std::unique_ptr<Ops> inner, DeviceQueue& queue)
      : Owned{std::move(inner)}, QueuedOps(*Owned::ops), queue_(queue) {}
  void Finish() override { queue_.Finish(); }

 private:
  void Ask(std::function<void()> work) override { queue_.Call(std::move(work)); }

  DeviceQueue& queue_;
};

}  // namespace

std::unique_ptr<Ops> MakeQueuedOps(std::unique_ptr<Ops> inner, DeviceQueue& queue) {
  return std::make_unique<OpsInQueue>(std::move(inner), queue);
}

}  // namespace tandem
