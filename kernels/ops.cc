#include "kernels/ops.h"

namespace tandem {

const char* ToString(ActivationType type) { return type == ActivationType::kInt8 ? "int8" : "f32"; }

const char* ToString(AttentionPrecision precision) {
  return precision == AttentionPrecision::kSplit ? "split" : "half";
}

RowForm FormFor(ActivationType activations, DType weights) {
  if (activations == ActivationType::kF32) return RowForm::kF32;
  if (Traits(weights).quantized) return RowForm::kInt8;
  return weights == DType::kBF16 ? RowForm::kBf16 : RowForm::kF32;
}

const char* ToString(PrefillProducts products) {
  return products == PrefillProducts::kOwn ? "own" : "cublaslt";
}

void Ops::AddNorm(const float* x, const float* y, const float* w, float eps, uint64_t n,
                  uint64_t hidden, float* sum, float* norm) {
  Add(x, y, n * hidden, sum);
  RmsNorm(sum, w, eps, n, hidden, norm);
}

PreparedRows Ops::PrepareSwiGlu(float* gate, const float* up, uint64_t n, uint64_t cols,
                                DType weight_type, Int8Parts parts, std::byte* scratch) {
  SwiGlu(gate, up, n * cols, gate);
  return PrepareRows(gate, n, cols, weight_type, parts, scratch);
}

}  // namespace tandem
