#include "kernels/ops.h"

namespace tandem {

const char* ToString(ActivationType type) { return type == ActivationType::kInt8 ? "int8" : "f32"; }

}  // namespace tandem
