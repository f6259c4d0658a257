// out = x + y;  y = y + bias, row by row;  out = silu(gate) * up, silu(g) = g / (1 + exp(-g));
// runs of floats copied.
#include <cmath>

#include "kernels/ref/ref.h"

namespace tandem::ref {

void Add(const float* x, const float* y, uint64_t n, float* out) {
  for (uint64_t i = 0; i < n; ++i) out[i] = x[i] + y[i];
}

void AddBias(const float* bias, uint64_t n, uint64_t width, float* y) {
  for (uint64_t t = 0; t < n; ++t) {
    for (uint64_t i = 0; i < width; ++i) y[t * width + i] += bias[i];
  }
}

void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) {
  for (uint64_t i = 0; i < n; ++i) {
    const double g = gate[i];
    out[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * up[i]);
  }
}

void CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
              uint64_t width, uint64_t rows) {
  for (uint64_t row = 0; row < rows; ++row) {
    for (uint64_t i = 0; i < width; ++i) to[row * to_stride + i] = from[row * from_stride + i];
  }
}

}  // namespace tandem::ref
