// y = x / sqrt(mean(x^2) + eps) * w, row by row.  x, y (n, hidden); w (hidden)
#include <cmath>

#include "kernels/ref/ref.h"

namespace tandem::ref {

void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden, float* y) {
  for (uint64_t t = 0; t < n; ++t) {
    double squares = 0.0;
    for (uint64_t i = 0; i < hidden; ++i) squares += double{x[i]} * x[i];
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(hidden) + eps);
    for (uint64_t i = 0; i < hidden; ++i) y[i] = static_cast<float>(x[i] * scale * w[i]);
    x += hidden;
    y += hidden;
  }
}

}  // namespace tandem::ref
