// y(n, rows) = x(n, cols) * W^T, with f32 activations, as they are or rounded to BF16, or int8 ones
// (kernels/int8_block.h).
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/base/check.h"
#include "kernels/int8_block.h"
#include "kernels/ref/ref.h"

namespace tandem::ref {
namespace {

// A stored block of 32 weights: w = d * q + m.
struct WeightBlock {
  float d = 0.0f;
  float m = 0.0f;
  int q[32];
};

float ReadF16(const std::byte* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  return F16ToF32(bits);
}

// Nibbles of ggml's 4-bit blocks: byte i holds element i below and element i + 16 above.
void ReadNibbles(const std::byte* at, int offset, int* q) {
  for (int i = 0; i < 16; ++i) {
    const int byte = std::to_integer<int>(at[i]);
    q[i] = (byte & 15) - offset;
    q[i + 16] = (byte >> 4) - offset;
  }
}

WeightBlock ReadBlock(DType type, const std::byte* at) {
  WeightBlock block;
  block.d = ReadF16(at);
  switch (type) {
    case DType::kQ4_0:
      ReadNibbles(at + 2, 8, block.q);
      break;
    case DType::kQ4_1:
      block.m = ReadF16(at + 2);
      ReadNibbles(at + 4, 0, block.q);
      break;
    case DType::kQ8_0:
      for (int i = 0; i < 32; ++i) block.q[i] = static_cast<int8_t>(at[2 + i]);
      break;
    default:
      Check(false, "ref: not a quantised type");
  }
  return block;
}

}  // namespace

const std::byte* PackedRow(const PackedMatrix& w, uint64_t row, uint64_t col) {
  return w.data + (row - w.slice.row_begin) * RowBytes(w.type, w.slice.cols()) +
         RowBytes(w.type, col - w.slice.col_begin);
}

void QuantizeActivations(const float* x, uint64_t n, uint64_t cols, Int8Activations* out) {
  for (uint64_t b = 0; b < n * cols / kInt8Block; ++b) {
    const float* block = x + b * kInt8Block;
    float absmax = 0.0f;
    bool finite = true;
    for (uint64_t i = 0; i < kInt8Block; ++i) {
      finite = finite && std::isfinite(block[i]);
      absmax = std::max(absmax, std::fabs(block[i]));
    }
    const bool zero = !finite || absmax < kInt8Tiny;
    out[b].scale = finite ? (zero ? 0.0f : absmax / 127.0f) : NAN;
    const float inverse = zero ? 0.0f : 127.0f / absmax;
    for (uint64_t i = 0; i < kInt8Block; ++i) {
      out[b].q[i] = zero ? 0 : static_cast<int8_t>(std::nearbyint(block[i] * inverse));
    }
  }
}

void RoundToBf16(const float* x, uint64_t n, float* out) {
  for (uint64_t i = 0; i < n; ++i) out[i] = BF16ToF32(F32ToBF16(x[i]));
}

void MatMulF32(const PreparedRows& x, const MatMulTask& task) {
  const bool rounded = x.form == RowForm::kBf16 && task.w->type == DType::kBF16;
  const float* rows = rounded ? reinterpret_cast<const float*>(x.narrow) : x.f32;
  std::vector<float> w(x.cols);
  for (uint64_t r = 0; r < task.slice.rows(); ++r) {
    const std::byte* row = PackedRow(*task.w, task.slice.row_begin + r, task.slice.col_begin);
    DequantizeRow(task.w->type, row, w.data(), x.cols);
    for (uint64_t t = 0; t < x.n; ++t) {
      double sum = 0.0;
      for (uint64_t c = 0; c < x.cols; ++c) sum += double{w[c]} * rows[t * x.cols + c];
      task.y[t * task.y_stride + r] = static_cast<float>(sum);
    }
  }
}

void MatMulInt8(const PreparedRows& x, const MatMulTask& task) {
  const DType type = task.w->type;
  const uint64_t blocks = x.cols / kInt8Block;
  const auto* rows = reinterpret_cast<const Int8Activations*>(x.narrow);
  for (uint64_t r = 0; r < task.slice.rows(); ++r) {
    const std::byte* row = PackedRow(*task.w, task.slice.row_begin + r, task.slice.col_begin);
    for (uint64_t t = 0; t < x.n; ++t) {
      float acc = 0.0f;
      for (uint64_t b = 0; b < blocks; ++b) {
        const WeightBlock w = ReadBlock(type, row + b * Traits(type).block_bytes);
        const Int8Activations& a = rows[t * blocks + b];
        int32_t dot = 0;
        int32_t sum = 0;
        for (int i = 0; i < 32; ++i) {
          dot += w.q[i] * a.q[i];
          sum += a.q[i];
        }
        acc += (w.d * a.scale) * static_cast<float>(dot);
        if (type == DType::kQ4_1) acc += w.m * (a.scale * static_cast<float>(sum));
      }
      task.y[t * task.y_stride + r] = acc;
    }
  }
}

}  // namespace tandem::ref
