#include "tests/kernels/staged_ops.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace tandem {
namespace {

class StagedOps final : public Ops {
 public:
  StagedOps(std::unique_ptr<Ops> inner, Device& device, const HostCopies& copies)
      : inner_(std::move(inner)), device_(device), copies_(copies) {}

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
    const Buffer rows = Bring(x, n * cols * sizeof(float));
    const uint64_t bytes = PreparedBytes(n, cols);
    const Buffer narrow = Bring(scratch, bytes);
    PreparedRows prepared =
        inner_->PrepareRows(rows.as<const float>(), n, cols, weight_type, parts, narrow.data());
    if (prepared.narrow != nullptr) {
      Take(narrow, scratch, bytes);
      prepared.narrow = scratch;
    }
    prepared.f32 = x;
    return prepared;
  }

  void MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) override {
    PreparedRows rows = x;
    const Buffer f32 = Bring(x.f32, x.n * x.cols * sizeof(float));
    const Buffer narrow = Bring(x.narrow, x.narrow == nullptr ? 0 : PreparedBytes(x.n, x.cols));
    rows.f32 = f32.as<const float>();
    if (x.narrow != nullptr) rows.narrow = narrow.data();
    std::vector<Buffer> weights, outputs;
    std::vector<PackedMatrix> matrices(tasks.size());
    std::vector<MatMulTask> moved(tasks.begin(), tasks.end());
    for (size_t i = 0; i < tasks.size(); ++i) {
      matrices[i] = *tasks[i].w;
      weights.push_back(Bring(tasks[i].w->data, tasks[i].w->bytes));
      matrices[i].data = weights.back().data();
      outputs.push_back(Bring(tasks[i].y, OutputBytes(x.n, tasks[i])));
      moved[i].w = &matrices[i];
      moved[i].y = outputs.back().as<float>();
    }
    inner_->MatMul(rows, moved);
    for (size_t i = 0; i < tasks.size(); ++i) {
      // The gaps between rows may be another task's.
      std::vector<std::byte> all(OutputBytes(x.n, tasks[i]));
      Take(outputs[i], all.data(), all.size());
      for (uint64_t t = 0; t < x.n && tasks[i].slice.rows() > 0; ++t) {
        const uint64_t at = t * tasks[i].y_stride;
        std::memcpy(tasks[i].y + at, all.data() + at * sizeof(float),
                    tasks[i].slice.rows() * sizeof(float));
      }
    }
  }

  void Embed(const PackedMatrix& table, const MatrixSlice& slice, std::span<const int32_t> ids,
             float* out) override {
    PackedMatrix moved = table;
    const Buffer rows = Bring(table.data, table.bytes);
    moved.data = rows.data();
    const uint64_t bytes = ids.size() * slice.cols() * sizeof(float);
    const Buffer to = Bring(out, bytes);
    inner_->Embed(moved, slice, ids, to.as<float>());
    Take(to, out, bytes);
  }

  void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
               float* y) override {
    const Buffer weights = Bring(w, hidden * sizeof(float));
    Map(x, nullptr, n * hidden, y, [&](const float* from, const float*, float* to) {
      inner_->RmsNorm(from, weights.as<const float>(), eps, n, hidden, to);
    });
  }
  void Add(const float* x, const float* y, uint64_t n, float* out) override {
    Map(x, y, n, out, [&](const float* a, const float* b, float* to) { inner_->Add(a, b, n, to); });
  }
  void AddNorm(const float* x, const float* y, const float* w, float eps, uint64_t n,
               uint64_t hidden, float* sum, float* norm) override {
    const uint64_t bytes = n * hidden * sizeof(float);
    const Buffer weights = Bring(w, hidden * sizeof(float));
    // Each place once, as in the call.
    const Buffer first = Bring(x, bytes), second = Bring(y, bytes);
    const Buffer apart_sum = Bring(sum, bytes), apart_norm = Bring(norm, bytes);
    const auto place = [&](const float* at, const Buffer& apart) -> const Buffer& {
      return at == x ? first : at == y ? second : apart;
    };
    const Buffer& to_sum = place(sum, apart_sum);
    const Buffer& to_norm = place(norm, apart_norm);
    inner_->AddNorm(first.as<const float>(), second.as<const float>(), weights.as<const float>(),
                    eps, n, hidden, to_sum.as<float>(), to_norm.as<float>());
    Take(to_sum, sum, bytes);
    Take(to_norm, norm, bytes);
  }
  PreparedRows PrepareSwiGlu(float* gate, const float* up, uint64_t n, uint64_t cols,
                             DType weight_type, Int8Parts parts, std::byte* scratch) override {
    const Buffer first = Bring(gate, n * cols * sizeof(float));
    const Buffer second = Bring(up, n * cols * sizeof(float));
    const uint64_t bytes = PreparedBytes(n, cols);
    const Buffer narrow = Bring(scratch, bytes);
    PreparedRows prepared = inner_->PrepareSwiGlu(first.as<float>(), second.as<const float>(), n,
                                                  cols, weight_type, parts, narrow.data());
    Take(first, gate, n * cols * sizeof(float));
    if (prepared.narrow != nullptr) {
      Take(narrow, scratch, bytes);
      prepared.narrow = scratch;
    }
    prepared.f32 = gate;
    return prepared;
  }
  void AddBias(const float* bias, uint64_t n, uint64_t width, float* y) override {
    const Buffer own = Bring(bias, width * sizeof(float));
    Map(y, nullptr, n * width, y, [&](const float*, const float*, float* to) {
      inner_->AddBias(own.as<const float>(), n, width, to);
    });
  }
  void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) override {
    Map(gate, up, n, out,
        [&](const float* a, const float* b, float* to) { inner_->SwiGlu(a, b, n, to); });
  }
  void Zero(float* x, uint64_t n) override {
    Map(x, nullptr, n, x, [&](const float*, const float*, float* to) { inner_->Zero(to, n); });
  }
  void CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
                uint64_t width, uint64_t rows) override {
    if (rows == 0) return;
    const uint64_t to_bytes = ((rows - 1) * to_stride + width) * sizeof(float);
    const Buffer source = Bring(from, ((rows - 1) * from_stride + width) * sizeof(float));
    const Buffer target = Bring(to, to_bytes);
    inner_->CopyRows(source.as<const float>(), from_stride, target.as<float>(), to_stride, width,
                     rows);
    Take(target, to, to_bytes);
  }
  uint64_t TopKBytes(uint64_t n, uint32_t width, uint32_t k) const override {
    return inner_->TopKBytes(n, width, k);
  }
  void TopK(const float* x, uint64_t n, uint32_t width, uint32_t k, std::byte* scratch,
            TopEntry* out) override {
    const Buffer rows = Bring(x, n * width * sizeof(float));
    const Buffer room = Bring(scratch, TopKBytes(n, width, k));
    const Buffer entries = Bring(out, n * k * sizeof(TopEntry));
    inner_->TopK(rows.as<const float>(), n, width, k, room.data(), entries.as<TopEntry>());
    Take(entries, out, n * k * sizeof(TopEntry));
  }
  void Finish() override { inner_->Finish(); }

  KeyOrder key_order() const override { return inner_->key_order(); }
  void RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads, const RopeParams& rope,
                    std::span<const SequenceRows> sequences, const KvView& kv) override {
    const uint64_t rows = RowsOf(sequences);
    const uint64_t q_bytes = rows * q_heads * kv.head_dim * sizeof(float);
    const uint64_t kv_bytes = rows * kv.kv_heads * kv.head_dim * sizeof(float);
    const Buffer queries = Bring(q, q_bytes), keys = Bring(k, kv_bytes),
                 values = Bring(v, kv_bytes);
    const Buffer pages = Bring(kv.base, PageBytes(sequences, kv));
    KvView moved = kv;
    moved.base = pages.data();
    inner_->RopeAndStore(queries.as<float>(), keys.as<float>(), values.as<const float>(), q_heads,
                         rope, sequences, moved);
    Take(queries, q, q_bytes);
    Take(keys, k, kv_bytes);
    Take(pages, kv.base, PageBytes(sequences, kv));
  }
  void Attention(const float* q, uint32_t q_heads, uint32_t window,
                 std::span<const SequenceRows> sequences, const KvView& kv, float* out) override {
    const uint64_t bytes = RowsOf(sequences) * q_heads * kv.head_dim * sizeof(float);
    const Buffer pages = Bring(kv.base, PageBytes(sequences, kv));
    KvView moved = kv;
    moved.base = pages.data();
    moved.room = nullptr;
    moved.room_bytes = 0;
    Map(q, nullptr, bytes / sizeof(float), out, [&](const float* from, const float*, float* to) {
      inner_->Attention(from, q_heads, window, sequences, moved, to);
    });
  }

 private:
  static uint64_t OutputBytes(uint64_t n, const MatMulTask& task) {
    return n == 0 ? 0 : ((n - 1) * task.y_stride + task.slice.rows()) * sizeof(float);
  }
  static uint64_t RowsOf(std::span<const SequenceRows> sequences) {
    uint64_t rows = 0;
    for (const SequenceRows& s : sequences) rows = std::max<uint64_t>(rows, s.first_row + s.n_rows);
    return rows;
  }
  static uint64_t PageBytes(std::span<const SequenceRows> sequences, const KvView& kv) {
    uint64_t pages = 0;
    for (const SequenceRows& s : sequences) {
      for (uint32_t i = 0; i < (s.start + s.n_rows + kPageTokens - 1) / kPageTokens; ++i) {
        pages = std::max(pages, static_cast<uint64_t>(s.pages[i]) + 1);
      }
    }
    return pages * kv.stride;
  }

  Buffer Bring(const void* from, uint64_t bytes) {
    Buffer buffer =
        device_.Allocate(MemoryUse::kWorkspace, Bytes{std::max<uint64_t>(bytes, 1)}, "staged");
    if (bytes > 0) copies_.to_gpu(buffer.data(), from, bytes);
    return buffer;
  }
  void Take(const Buffer& buffer, void* to, uint64_t bytes) {
    inner_->Finish();
    if (bytes > 0) copies_.to_host(to, buffer.data(), bytes);
  }
  // body(x, y, out) on the GPU, n floats each; out may be x or y there as here.
  template <typename Body>
  void Map(const float* x, const float* y, uint64_t n, float* out, Body body) {
    const uint64_t bytes = n * sizeof(float);
    const Buffer first = Bring(x, bytes);
    const Buffer second = Bring(y, y == nullptr || y == x ? 0 : bytes);
    const Buffer third = Bring(out, out == x || out == y ? 0 : bytes);
    const Buffer& to = out == x ? first : out == y ? second : third;
    body(first.as<const float>(), (y == x ? first : second).as<const float>(), to.as<float>());
    Take(to, out, bytes);
  }

  std::unique_ptr<Ops> inner_;
  Device& device_;
  HostCopies copies_;
};

}  // namespace

std::unique_ptr<Ops> MakeStagedOps(std::unique_ptr<Ops> inner, Device& device,
                                   const HostCopies& copies) {
  return std::make_unique<StagedOps>(std::move(inner), device, copies);
}

}  // namespace tandem
