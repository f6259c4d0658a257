// The naive oracle's loops, one op a file: written to be read against their formula, not to be
// fast. Sums that the definition leaves open are taken in double.
//
// Thread rule: no state; any thread.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops.h"

namespace tandem::ref {

// One block of 32 activations as int8; see kernels/int8_block.h.
struct Int8Activations {
  float scale;
  int8_t q[32];
};

// (n, cols) -> (n, parts, cols / 32) blocks.
void QuantizeActivations(const float* x, uint64_t n, uint64_t cols, Int8Parts parts,
                         Int8Activations* out);

// Each of n values rounded to the nearest BF16, ties to even.
void RoundToBf16(const float* x, uint64_t n, float* out);

// y(n, slice.rows) of one task.
void MatMulF32(const PreparedRows& x, const MatMulTask& task);
void MatMulInt8(const PreparedRows& x, const MatMulTask& task);

void Embed(const PackedMatrix& table, const MatrixSlice& slice, std::span<const int32_t> ids,
           float* out);
void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden, float* y);
void Add(const float* x, const float* y, uint64_t n, float* out);
void AddBias(const float* bias, uint64_t n, uint64_t width, float* y);
void SwiGlu(const float* gate, const float* up, uint64_t n, float* out);
void CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
              uint64_t width, uint64_t rows);
void RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads, const RopeParams& rope,
                  std::span<const SequenceRows> sequences, const KvView& kv);
void Attention(const float* q, uint32_t q_heads, uint32_t window,
               std::span<const SequenceRows> sequences, const KvView& kv, float* out);
void TopK(const float* x, uint64_t n, uint32_t width, uint32_t k, TopEntry* out);

// The stored bytes of row `row` (in the tensor's coordinates), from column `col` on.
const std::byte* PackedRow(const PackedMatrix& w, uint64_t row, uint64_t col);

// Key (or value) vector of head `head` at `position` of a sequence: head_dim f16 values.
uint16_t* KeyAt(const KvView& kv, const SequenceRows& sequence, uint32_t position, uint32_t head);
uint16_t* ValueAt(const KvView& kv, const SequenceRows& sequence, uint32_t position, uint32_t head);

}  // namespace tandem::ref
