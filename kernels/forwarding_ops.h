// Ops that pass every call on to others: for what comes before a call, or instead of one of them.
// Thread rule: that of the inner one.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>

#include "kernels/ops.h"

namespace tandem {

class ForwardingOps : public Ops {
 public:
  std::string name() const override { return inner_->name(); }
  ActivationType activations() const override { return inner_->activations(); }
  uint64_t PackedBytes(DType type, const MatrixSlice& slice) const override {
    return inner_->PackedBytes(type, slice);
  }
  void Pack(const TensorView& tensor, PackedMatrix& out) override { Inner().Pack(tensor, out); }
  uint64_t PreparedBytes(uint64_t n, uint64_t cols) const override {
    return inner_->PreparedBytes(n, cols);
  }
  PreparedRows PrepareRows(const float* x, uint64_t n, uint64_t cols, DType weight_type,
                           Int8Parts parts, std::byte* scratch) override {
    return Inner().PrepareRows(x, n, cols, weight_type, parts, scratch);
  }
  void MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) override {
    Inner().MatMul(x, tasks);
  }
  void Embed(const PackedMatrix& table, const MatrixSlice& slice, std::span<const int32_t> ids,
             float* out) override {
    Inner().Embed(table, slice, ids, out);
  }
  void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
               float* y) override {
    Inner().RmsNorm(x, w, eps, n, hidden, y);
  }
  void Add(const float* x, const float* y, uint64_t n, float* out) override {
    Inner().Add(x, y, n, out);
  }
  void AddNorm(const float* x, const float* y, const float* w, float eps, uint64_t n,
               uint64_t hidden, float* sum, float* norm) override {
    Inner().AddNorm(x, y, w, eps, n, hidden, sum, norm);
  }
  void AddBias(const float* bias, uint64_t n, uint64_t width, float* y) override {
    Inner().AddBias(bias, n, width, y);
  }
  void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) override {
    Inner().SwiGlu(gate, up, n, out);
  }
  PreparedRows PrepareSwiGlu(float* gate, const float* up, uint64_t n, uint64_t cols,
                             DType weight_type, Int8Parts parts, std::byte* scratch) override {
    return Inner().PrepareSwiGlu(gate, up, n, cols, weight_type, parts, scratch);
  }
  KeyOrder key_order() const override { return inner_->key_order(); }
  void RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads, const RopeParams& rope,
                    std::span<const SequenceRows> sequences, const KvView& kv) override {
    Inner().RopeAndStore(q, k, v, q_heads, rope, sequences, kv);
  }
  void Attention(const float* q, uint32_t q_heads, uint32_t window,
                 std::span<const SequenceRows> sequences, const KvView& kv, float* out) override {
    Inner().Attention(q, q_heads, window, sequences, kv, out);
  }
  uint64_t TopKBytes(uint64_t n, uint32_t width, uint32_t k) const override {
    return inner_->TopKBytes(n, width, k);
  }
  void TopK(const float* x, uint64_t n, uint32_t width, uint32_t k, std::byte* scratch,
            TopEntry* out) override {
    Inner().TopK(x, n, width, k, scratch, out);
  }
  void Zero(float* x, uint64_t n) override { Inner().Zero(x, n); }
  void CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
                uint64_t width, uint64_t rows) override {
    Inner().CopyRows(from, from_stride, to, to_stride, width, rows);
  }
  void Finish() override { Inner().Finish(); }
  OpsRecorder* recorder() override { return Inner().recorder(); }

 protected:
  explicit ForwardingOps(std::unique_ptr<Ops> inner) : inner_(std::move(inner)) {}
  // What a call goes to; asked once a call that has work.
  virtual Ops& Inner() { return *inner_; }

 private:
  std::unique_ptr<Ops> inner_;
};

}  // namespace tandem
