// Ops whose every call makes their GPU the thread's current one first: the executor's one thread
// asks several.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "kernels/ops.h"

namespace tandem {

class OnGpu final : public Ops {
 public:
  OnGpu(std::unique_ptr<Ops> inner, std::function<void()> make_current)
      : inner_(std::move(inner)), make_current_(std::move(make_current)) {}

  std::string name() const override { return inner_->name(); }
  ActivationType activations() const override { return inner_->activations(); }
  uint64_t PackedBytes(DType type, const MatrixSlice& slice) const override {
    return inner_->PackedBytes(type, slice);
  }
  void Pack(const TensorView& tensor, PackedMatrix& out) override { Here().Pack(tensor, out); }
  uint64_t PreparedBytes(uint64_t n, uint64_t cols) const override {
    return inner_->PreparedBytes(n, cols);
  }
  PreparedRows PrepareRows(const float* x, uint64_t n, uint64_t cols, DType weight_type,
                           Int8Parts parts, std::byte* scratch) override {
    return Here().PrepareRows(x, n, cols, weight_type, parts, scratch);
  }
  void MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) override {
    Here().MatMul(x, tasks);
  }
  void Embed(const PackedMatrix& table, const MatrixSlice& slice, std::span<const int32_t> ids,
             float* out) override {
    Here().Embed(table, slice, ids, out);
  }
  void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
               float* y) override {
    Here().RmsNorm(x, w, eps, n, hidden, y);
  }
  void Add(const float* x, const float* y, uint64_t n, float* out) override {
    Here().Add(x, y, n, out);
  }
  void AddBias(const float* bias, uint64_t n, uint64_t width, float* y) override {
    Here().AddBias(bias, n, width, y);
  }
  void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) override {
    Here().SwiGlu(gate, up, n, out);
  }
  void RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads, const RopeParams& rope,
                    std::span<const SequenceRows> sequences, const KvView& kv) override {
    Here().RopeAndStore(q, k, v, q_heads, rope, sequences, kv);
  }
  void Attention(const float* q, uint32_t q_heads, uint32_t window,
                 std::span<const SequenceRows> sequences, const KvView& kv, float* out) override {
    Here().Attention(q, q_heads, window, sequences, kv, out);
  }
  void Zero(float* x, uint64_t n) override { Here().Zero(x, n); }
  void CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
                uint64_t width, uint64_t rows) override {
    Here().CopyRows(from, from_stride, to, to_stride, width, rows);
  }
  void Finish() override { Here().Finish(); }

 private:
  Ops& Here() {
    make_current_();
    return *inner_;
  }

  std::unique_ptr<Ops> inner_;
  const std::function<void()> make_current_;
};

}  // namespace tandem
