#include "kernels/validate.h"

#include <cmath>

#include "engine/base/check.h"

namespace tandem {

void CheckSlice(DType type, const MatrixSlice& slice, uint64_t rows, uint64_t cols) {
  const uint64_t block = Traits(type).block_elems;
  Check(slice.row_begin <= slice.row_end && slice.row_end <= rows, "kernels: slice rows");
  Check(slice.col_begin <= slice.col_end && slice.col_end <= cols, "kernels: slice columns");
  Check(slice.col_begin % block == 0 && slice.col_end % block == 0,
        "kernels: slice cuts a quantisation block");
}

void CheckInside(DType type, const MatrixSlice& inner, const MatrixSlice& outer) {
  const uint64_t block = Traits(type).block_elems;
  Check(outer.row_begin <= inner.row_begin && inner.row_begin <= inner.row_end &&
            inner.row_end <= outer.row_end,
        "kernels: rows outside the packed slice");
  Check(outer.col_begin <= inner.col_begin && inner.col_begin <= inner.col_end &&
            inner.col_end <= outer.col_end,
        "kernels: columns outside the packed slice");
  Check((inner.col_begin - outer.col_begin) % block == 0 && inner.cols() % block == 0,
        "kernels: slice cuts a quantisation block");
}

void CheckPack(const TensorView& tensor, const PackedMatrix& out, uint64_t bytes_needed) {
  Check(tensor.data != nullptr, "kernels: Pack of a tensor without data");
  Check(out.data != nullptr && out.bytes >= bytes_needed, "kernels: Pack into too little memory");
  Check(out.type == tensor.type, "kernels: Pack changes no type");
  CheckSlice(tensor.type, out.slice, tensor.rows, tensor.cols);
}

void CheckMatMul(const PreparedRows& x, const MatMulTask& task, RowForm form) {
  Check(task.w != nullptr && task.w->data != nullptr, "kernels: MatMul without weights");
  Check(task.y != nullptr || x.n == 0, "kernels: MatMul without an output");
  CheckInside(task.w->type, task.slice, task.w->slice);
  Check(task.slice.cols() == x.cols, "kernels: MatMul rows do not match the slice's columns");
  Check(task.y_stride >= task.slice.rows(), "kernels: MatMul output rows overlap");
  Check(x.f32 != nullptr || x.n == 0, "kernels: MatMul without rows");
  Check(x.cols > 0, "kernels: MatMul without columns");
  Check(form == RowForm::kF32 || (x.form == form && x.narrow != nullptr) || x.n == 0,
        "kernels: MatMul with rows prepared for weights of another form");
}

void CheckRope(const RopeParams& rope, const KvView& kv, uint32_t q_heads) {
  CheckAttention(kv, q_heads);
  Check(rope.rope_dim % 2 == 0 && rope.rope_dim <= kv.head_dim, "kernels: rope_dim");
  Check(rope.theta > 0.0f && rope.scale > 0.0f, "kernels: rope theta and scale");
  Check(rope.frequencies.empty() || rope.frequencies.size() == rope.rope_dim / 2,
        "kernels: a rope frequency for each pair");
  Check(std::isfinite(rope.magnitude), "kernels: rope magnitude");
}

void CheckAttention(const KvView& kv, uint32_t q_heads) {
  Check(kv.base != nullptr && kv.head_dim > 0, "kernels: attention without pages");
  Check(kv.kv_heads > 0 && q_heads % kv.kv_heads == 0, "kernels: heads do not divide");
  Check(kv.stride >= uint64_t{2} * kv.kv_heads * kPageTokens * kv.head_dim * sizeof(uint16_t),
        "kernels: KV pages overlap");
}

void CheckTopK(uint32_t width, uint32_t k) {
  Check(width > 0 && k >= 1 && k <= kMostTopK, "kernels: TopK of 1 to 64 values of a row");
}

void CheckSequences(std::span<const SequenceRows> sequences) {
  for (const SequenceRows& sequence : sequences) {
    Check(sequence.n_rows == 0 || sequence.pages != nullptr, "kernels: sequence without pages");
  }
}

}  // namespace tandem
