// The shape checks that every back end makes before it computes: a mismatch is a bug in the caller,
// so it aborts with what was wrong.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops.h"

namespace tandem {

// The slice lies within (rows, cols) and cuts no block of `type`.
void CheckSlice(DType type, const MatrixSlice& slice, uint64_t rows, uint64_t cols);
// `inner` lies within `outer` and cuts no block of `type`.
void CheckInside(DType type, const MatrixSlice& inner, const MatrixSlice& outer);
void CheckPack(const TensorView& tensor, const PackedMatrix& out, uint64_t bytes_needed);
// `form`: what the rows must have become for this weight.
void CheckMatMul(const PreparedRows& x, const MatMulTask& task, RowForm form);
void CheckRope(const RopeParams& rope, const KvView& kv, uint32_t q_heads);
void CheckAttention(const KvView& kv, uint32_t q_heads);
void CheckTopK(uint32_t width, uint32_t k);
void CheckSequences(std::span<const SequenceRows> sequences);

}  // namespace tandem
