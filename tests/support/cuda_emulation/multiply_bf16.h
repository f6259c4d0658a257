// The reference that stands in for a library's product of BF16: f32 sums in order of columns.
#pragma once

#include <cstdint>
#include <cstring>

namespace tandem::cuda {

struct Bf16Product {
  const uint16_t* w = nullptr;  // (outputs, cols)
  uint64_t w_stride = 0;
  const uint16_t* x = nullptr;  // (rows, cols)
  uint64_t x_stride = 0;
  float* y = nullptr;  // (rows, outputs)
  uint64_t y_stride = 0;
  uint64_t rows = 0, outputs = 0, cols = 0;
  bool adds = false;  // to what y holds
};

inline float WidenBf16Bits(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

inline void MultiplyBf16(const Bf16Product& p) {
  for (uint64_t row = 0; row < p.rows; ++row) {
    const uint16_t* x = p.x + row * p.x_stride;
    for (uint64_t output = 0; output < p.outputs; ++output) {
      const uint16_t* w = p.w + output * p.w_stride;
      float sum = 0.0f;
      for (uint64_t c = 0; c < p.cols; ++c) sum += WidenBf16Bits(w[c]) * WidenBf16Bits(x[c]);
      float& y = p.y[row * p.y_stride + output];
      y = p.adds ? y + sum : sum;
    }
  }
}

}  // namespace tandem::cuda
