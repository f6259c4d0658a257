// The oracle behind the Ops interface: packed matrices are plain copies of the stored rows.
#include <algorithm>
#include <cstring>
#include <memory>

#include "kernels/int8_block.h"
#include "kernels/ref/ref.h"
#include "kernels/validate.h"

namespace tandem {
namespace {

class RefOps final : public Ops {
 public:
  explicit RefOps(ActivationType activations) : activations_(activations) {}

  std::string name() const override { return "ref"; }
  ActivationType activations() const override { return activations_; }

  uint64_t PackedBytes(DType type, const MatrixSlice& slice) const override {
    return slice.rows() * RowBytes(type, slice.cols());
  }

  void Pack(const TensorView& tensor, PackedMatrix& out) override {
    CheckPack(tensor, out, PackedBytes(out.type, out.slice));
    const uint64_t row_bytes = RowBytes(out.type, out.slice.cols());
    for (uint64_t r = 0; r < out.slice.rows(); ++r) {
      std::memcpy(out.data + r * row_bytes,
                  tensor.row(out.slice.row_begin + r) + RowBytes(out.type, out.slice.col_begin),
                  row_bytes);
    }
  }

  uint64_t PreparedBytes(uint64_t n, uint64_t cols) const override {
    if (activations_ == ActivationType::kF32) return 0;
    // Rows rounded to BF16 are kept as f32, which is more than int8 takes.
    return n * cols * sizeof(float);
  }

  PreparedRows PrepareRows(const float* x, uint64_t n, uint64_t cols, DType weight_type,
                           Int8Parts parts, std::byte* scratch) override {
    PreparedRows rows{.f32 = x, .form = FormFor(activations_, weight_type), .n = n, .cols = cols};
    if (rows.form == RowForm::kInt8) {
      rows.parts = parts;
      ref::QuantizeActivations(x, n, cols, parts, reinterpret_cast<ref::Int8Activations*>(scratch));
    } else if (rows.form == RowForm::kBf16) {
      ref::RoundToBf16(x, n * cols, reinterpret_cast<float*>(scratch));
    }
    if (rows.form != RowForm::kF32) rows.narrow = scratch;
    return rows;
  }

  void MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) override {
    for (const MatMulTask& task : tasks) {
      const RowForm form = FormFor(activations_, task.w->type);
      CheckMatMul(x, task, form);
      if (form == RowForm::kInt8) {
        ref::MatMulInt8(x, task);
      } else {
        ref::MatMulF32(x, task);
      }
    }
  }

  void Embed(const PackedMatrix& table, const MatrixSlice& slice, std::span<const int32_t> ids,
             float* out) override {
    CheckInside(table.type, slice, table.slice);
    ref::Embed(table, slice, ids, out);
  }
  void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
               float* y) override {
    ref::RmsNorm(x, w, eps, n, hidden, y);
  }
  void Add(const float* x, const float* y, uint64_t n, float* out) override {
    ref::Add(x, y, n, out);
  }
  void AddBias(const float* bias, uint64_t n, uint64_t width, float* y) override {
    ref::AddBias(bias, n, width, y);
  }
  void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) override {
    ref::SwiGlu(gate, up, n, out);
  }
  KeyOrder key_order() const override { return KeyOrder::kByPosition; }
  void RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads, const RopeParams& rope,
                    std::span<const SequenceRows> sequences, const KvView& kv) override {
    CheckRope(rope, kv, q_heads);
    CheckSequences(sequences);
    ref::RopeAndStore(q, k, v, q_heads, rope, sequences, kv);
  }
  void Attention(const float* q, uint32_t q_heads, uint32_t window,
                 std::span<const SequenceRows> sequences, const KvView& kv, float* out) override {
    CheckAttention(kv, q_heads);
    CheckSequences(sequences);
    ref::Attention(q, q_heads, window, sequences, kv, out);
  }
  uint64_t TopKBytes(uint64_t, uint32_t, uint32_t) const override { return 0; }
  void TopK(const float* x, uint64_t n, uint32_t width, uint32_t k, std::byte*,
            TopEntry* out) override {
    CheckTopK(width, k);
    ref::TopK(x, n, width, k, out);
  }
  void Zero(float* x, uint64_t n) override { std::fill_n(x, n, 0.0f); }
  void CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
                uint64_t width, uint64_t rows) override {
    ref::CopyRows(from, from_stride, to, to_stride, width, rows);
  }
  void Finish() override {}

 private:
  ActivationType activations_;
};

}  // namespace

std::unique_ptr<Ops> MakeRefOps(ActivationType activations) {
  return std::make_unique<RefOps>(activations);
}

}  // namespace tandem
