#include "kernels/queued_ops.h"

#include <functional>
#include <utility>
#include <vector>

namespace tandem {
namespace {

// Sequences with page tables of their own.
struct OwnSequences {
  explicit OwnSequences(std::span<const SequenceRows> sequences)
      : rows(sequences.begin(), sequences.end()) {
    for (const SequenceRows& s : sequences) {
      const uint32_t count = (s.start + s.n_rows + kPageTokens - 1) / kPageTokens;
      pages.emplace_back(s.pages, s.pages + count);
    }
  }
  std::span<const SequenceRows> Bind() {
    for (size_t i = 0; i < rows.size(); ++i) rows[i].pages = pages[i].data();
    return rows;
  }
  std::vector<SequenceRows> rows;
  std::vector<std::vector<int32_t>> pages;
};

class QueuedOps final : public Ops {
 public:
  QueuedOps(std::unique_ptr<Ops> inner, DeviceQueue& queue)
      : inner_(std::move(inner)), queue_(queue) {}

  std::string name() const override { return inner_->name(); }
  ActivationType activations() const override { return inner_->activations(); }
  uint64_t PackedBytes(DType type, const MatrixSlice& slice) const override {
    return inner_->PackedBytes(type, slice);
  }
  void Pack(const TensorView& tensor, PackedMatrix& out) override { inner_->Pack(tensor, out); }
  uint64_t PreparedBytes(uint64_t n, uint64_t cols) const override {
    return inner_->PreparedBytes(n, cols);
  }
  PreparedRows PrepareRows(const float* x, uint64_t n, uint64_t cols, DType weight_type,
                           Int8Parts parts, std::byte* scratch) override {
    Ask([=, this] { inner_->PrepareRows(x, n, cols, weight_type, parts, scratch); });
    const RowForm form = FormFor(activations(), weight_type);
    return PreparedRows{.f32 = x,
                        .narrow = form == RowForm::kF32 ? nullptr : scratch,
                        .form = form,
                        .parts = form == RowForm::kInt8 ? parts : Int8Parts::kOne,
                        .n = n,
                        .cols = cols};
  }
  void MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) override {
    std::vector<PackedMatrix> weights;
    for (const MatMulTask& task : tasks) weights.push_back(*task.w);
    Ask([this, x, weights = std::move(weights),
         own = std::vector<MatMulTask>(tasks.begin(), tasks.end())]() mutable {
      for (size_t i = 0; i < own.size(); ++i) own[i].w = &weights[i];
      inner_->MatMul(x, own);
    });
  }
  void Embed(const PackedMatrix& table, const MatrixSlice& slice, std::span<const int32_t> ids,
             float* out) override {
    Ask([=, this, own = std::vector<int32_t>(ids.begin(), ids.end())] {
      inner_->Embed(table, slice, own, out);
    });
  }
  void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
               float* y) override {
    Ask([=, this] { inner_->RmsNorm(x, w, eps, n, hidden, y); });
  }
  void Add(const float* x, const float* y, uint64_t n, float* out) override {
    Ask([=, this] { inner_->Add(x, y, n, out); });
  }
  void AddBias(const float* bias, uint64_t n, uint64_t width, float* y) override {
    Ask([=, this] { inner_->AddBias(bias, n, width, y); });
  }
  void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) override {
    Ask([=, this] { inner_->SwiGlu(gate, up, n, out); });
  }
  void RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads, const RopeParams& rope,
                    std::span<const SequenceRows> sequences, const KvView& kv) override {
    Ask([=, this, own = OwnSequences(sequences),
         frequencies = std::vector<double>(rope.frequencies.begin(), rope.frequencies.end()),
         turn = rope]() mutable {
      turn.frequencies = frequencies;
      inner_->RopeAndStore(q, k, v, q_heads, turn, own.Bind(), kv);
    });
  }
  void Attention(const float* q, uint32_t q_heads, uint32_t window,
                 std::span<const SequenceRows> sequences, const KvView& kv, float* out) override {
    Ask([=, this, own = OwnSequences(sequences)]() mutable {
      inner_->Attention(q, q_heads, window, own.Bind(), kv, out);
    });
  }
  uint64_t TopKBytes(uint64_t n, uint32_t width, uint32_t k) const override {
    return inner_->TopKBytes(n, width, k);
  }
  void TopK(const float* x, uint64_t n, uint32_t width, uint32_t k, std::byte* scratch,
            TopEntry* out) override {
    Ask([=, this] { inner_->TopK(x, n, width, k, scratch, out); });
  }
  void Zero(float* x, uint64_t n) override {
    Ask([=, this] { inner_->Zero(x, n); });
  }
  void CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
                uint64_t width, uint64_t rows) override {
    Ask([=, this] { inner_->CopyRows(from, from_stride, to, to_stride, width, rows); });
  }
  void Finish() override { queue_.Finish(); }

 private:
  void Ask(std::function<void()> work) { queue_.Call(std::move(work)); }

  const std::unique_ptr<Ops> inner_;
  DeviceQueue& queue_;
};

}  // namespace

std::unique_ptr<Ops> MakeQueuedOps(std::unique_ptr<Ops> inner, DeviceQueue& queue) {
  return std::make_unique<QueuedOps>(std::move(inner), queue);
}

}  // namespace tandem
