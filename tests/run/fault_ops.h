// Ops that fail or lie on command, around real ones.
#pragma once

#include <limits>
#include <memory>
#include <utility>

#include "engine/base/error.h"
#include "kernels/ops.h"

namespace tandem::testing {

struct FaultPlan {
  int fail_matmul_in = -1;  // the product that throws, counted down from here; -1: none
  bool poison_head =
      false;  // the next product over the whole vocabulary has a NaN in its first row
  uint64_t vocab = 0;
};

class FaultOps final : public Ops {
 public:
  FaultOps(std::unique_ptr<Ops> inner, std::shared_ptr<FaultPlan> faults)
      : inner_(std::move(inner)), faults_(std::move(faults)) {}

  std::string name() const override { return inner_->name(); }
  ActivationType activations() const override { return inner_->activations(); }
  uint64_t PackedBytes(DType type, const MatrixSlice& slice) const override {
    return inner_->PackedBytes(type, slice);
  }
  void Pack(const TensorView& tensor, PackedMatrix& out) override { inner_->Pack(tensor, out); }
  uint64_t PreparedBytes(uint64_t n, uint64_t cols) const override {
    return inner_->PreparedBytes(n, cols);
  }
  PreparedRows PrepareRows(const float* x, uint64_t n, uint64_t cols, DType type, Int8Parts parts,
                           std::byte* scratch) override {
    return inner_->PrepareRows(x, n, cols, type, parts, scratch);
  }
  void MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) override {
    if (faults_->fail_matmul_in >= 0 && faults_->fail_matmul_in-- == 0) {
      Fail(ErrorCode::kDevice, "injected: the device fell off the bus");
    }
    inner_->MatMul(x, tasks);
    if (faults_->poison_head && tasks[0].slice.rows() == faults_->vocab) {
      tasks[0].y[17] = std::numeric_limits<float>::quiet_NaN();
      faults_->poison_head = false;
    }
  }
  void Embed(const PackedMatrix& table, const MatrixSlice& slice, std::span<const int32_t> ids,
             float* out) override {
    inner_->Embed(table, slice, ids, out);
  }
  void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
               float* y) override {
    inner_->RmsNorm(x, w, eps, n, hidden, y);
  }
  void Add(const float* x, const float* y, uint64_t n, float* out) override {
    inner_->Add(x, y, n, out);
  }
  void AddBias(const float* bias, uint64_t n, uint64_t width, float* y) override {
    inner_->AddBias(bias, n, width, y);
  }
  void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) override {
    inner_->SwiGlu(gate, up, n, out);
  }
  void RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads, const RopeParams& rope,
                    std::span<const SequenceRows> sequences, const KvView& kv) override {
    inner_->RopeAndStore(q, k, v, q_heads, rope, sequences, kv);
  }
  void Attention(const float* q, uint32_t q_heads, uint32_t window,
                 std::span<const SequenceRows> sequences, const KvView& kv, float* out) override {
    inner_->Attention(q, q_heads, window, sequences, kv, out);
  }
  void Zero(float* x, uint64_t n) override { inner_->Zero(x, n); }
  void CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
                uint64_t width, uint64_t rows) override {
    inner_->CopyRows(from, from_stride, to, to_stride, width, rows);
  }
  void Finish() override { inner_->Finish(); }

 private:
  std::unique_ptr<Ops> inner_;
  std::shared_ptr<FaultPlan> faults_;
};

}  // namespace tandem::testing
