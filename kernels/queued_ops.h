// Ops whose every call is put in a queue and done in its order, when the queue gets to it: what a
// call is told in spans it keeps until then. For the host's processor beside cards, and, with rows
// that change from replay to replay, for the tests' fake devices.
//
// One thread asks; the inner Ops, and the team behind them, are the queue's alone.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace tandem {

// Sequences with page tables of their own.
class OwnSequences {
 public:
  OwnSequences() = default;
  explicit OwnSequences(std::span<const SequenceRows> sequences);
  // Valid until this moves.
  std::span<const SequenceRows> Bind();

 private:
  std::vector<SequenceRows> rows_;
  std::vector<std::vector<int32_t>> pages_;
};

class QueuedOps : public Ops {
 public:
  // `inner` outlives it.
  explicit QueuedOps(Ops& inner) : inner_(inner) {}

  std::string name() const override { return inner_.name(); }
  ActivationType activations() const final { return inner_.activations(); }
  uint64_t PackedBytes(DType type, const MatrixSlice& slice) const final {
    return inner_.PackedBytes(type, slice);
  }
  void Pack(const TensorView& tensor, PackedMatrix& out) final { inner_.Pack(tensor, out); }
  uint64_t PreparedBytes(uint64_t n, uint64_t cols) const final {
    return inner_.PreparedBytes(n, cols);
  }
  PreparedRows PrepareRows(const float* x, uint64_t n, uint64_t cols, DType weight_type,
                           Int8Parts parts, std::byte* scratch) final;
  void MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) final;
  void Embed(const PackedMatrix& table, const MatrixSlice& slice, std::span<const int32_t> ids,
             float* out) final;
  void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
               float* y) final;
  void Add(const float* x, const float* y, uint64_t n, float* out) final;
  void AddBias(const float* bias, uint64_t n, uint64_t width, float* y) final;
  void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) final;
  KeyOrder key_order() const final { return inner_.key_order(); }
  void RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads, const RopeParams& rope,
                    std::span<const SequenceRows> sequences, const KvView& kv) final;
  void Attention(const float* q, uint32_t q_heads, uint32_t window,
                 std::span<const SequenceRows> sequences, const KvView& kv, float* out) override;
  uint64_t TopKBytes(uint64_t n, uint32_t width, uint32_t k) const final {
    return inner_.TopKBytes(n, width, k);
  }
  void TopK(const float* x, uint64_t n, uint32_t width, uint32_t k, std::byte* scratch,
            TopEntry* out) final;
  void Zero(float* x, uint64_t n) final;
  void CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
                uint64_t width, uint64_t rows) final;

 protected:
  virtual void Ask(std::function<void()> work) = 0;
  // What a call was told, as it is when its work runs: here a copy made by the call.
  virtual std::function<std::span<const int32_t>()> IdsThen(std::span<const int32_t> ids);
  virtual std::function<std::span<const SequenceRows>()> SequencesThen(
      std::span<const SequenceRows> sequences);

 private:
  Ops& inner_;
};

// `queue` is the compute queue of the device whose memory the ops work on, and outlives the result.
std::unique_ptr<Ops> MakeQueuedOps(std::unique_ptr<Ops> inner, DeviceQueue& queue);

}  // namespace tandem
