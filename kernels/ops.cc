#include "kernels/ops.h"

namespace tandem {

const char* ToString(ActivationType type) { return type == ActivationType::kInt8 ? "int8" : "f32"; }

RowForm FormFor(ActivationType activations, DType weights) {
  if (activations == ActivationType::kF32) return RowForm::kF32;
  if (Traits(weights).quantized) return RowForm::kInt8;
  return weights == DType::kBF16 ? RowForm::kBf16 : RowForm::kF32;
}

}  // namespace tandem
