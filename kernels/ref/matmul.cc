// y(n, rows) = x(n, cols) * W^T, with f32 or int8 activations (kernels/int8_block.h).
#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/model/quant_block.h"
#include "kernels/int8_block.h"
#include "kernels/ref/ref.h"

namespace tandem::ref {
namespace {

// Block `sub` of 32 columns within a stored block, met by 32 activations: see int8_block.h.
float AddBlock(const int8_t* w, const BlockScales& scales, uint32_t sub, bool minimum,
               const Int8Activations& a, float acc) {
  int32_t dots[2] = {0, 0};  // of the halves of 16
  int32_t sum = 0;
  for (uint32_t i = 0; i < kInt8Block; ++i) {
    dots[i / kRun] += w[i] * a.q[i];
    sum += a.q[i];
  }
  const int* scale = scales.scale + 2 * sub;
  if (minimum) {
    const float d = scales.d * static_cast<float>(scale[0]);
    acc += (d * a.scale) * static_cast<float>(dots[0] + dots[1]);
    acc += scales.added[2 * sub] * (a.scale * static_cast<float>(sum));
  } else {
    acc += (scales.d * a.scale) * static_cast<float>(scale[0] * dots[0] + scale[1] * dots[1]);
  }
  return acc;
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

void MatMulF32(const PreparedRows& x, const MatMulTask& task) {
  std::vector<float> w(x.cols);
  for (uint64_t r = 0; r < task.slice.rows(); ++r) {
    const std::byte* row = PackedRow(*task.w, task.slice.row_begin + r, task.slice.col_begin);
    DequantizeRow(task.w->type, row, w.data(), x.cols);
    for (uint64_t t = 0; t < x.n; ++t) {
      double sum = 0.0;
      for (uint64_t c = 0; c < x.cols; ++c) sum += double{w[c]} * x.f32[t * x.cols + c];
      task.y[t * task.y_stride + r] = static_cast<float>(sum);
    }
  }
}

void MatMulInt8(const PreparedRows& x, const MatMulTask& task) {
  const DType type = task.w->type;
  const DTypeTraits& traits = Traits(type);
  const uint64_t row_blocks = x.cols / kInt8Block;
  const uint32_t subs = traits.block_elems / kInt8Block;
  const auto* rows = reinterpret_cast<const Int8Activations*>(x.quant);
  std::vector<float> acc(x.n);
  for (uint64_t r = 0; r < task.slice.rows(); ++r) {
    const std::byte* row = PackedRow(*task.w, task.slice.row_begin + r, task.slice.col_begin);
    std::fill(acc.begin(), acc.end(), 0.0f);
    for (uint64_t b = 0; b < x.cols / traits.block_elems; ++b) {
      int8_t w[kMaxBlockElems];
      ReadCodes(type, row + b * traits.block_bytes, w);
      const BlockScales scales = ReadScales(type, row + b * traits.block_bytes);
      for (uint64_t t = 0; t < x.n; ++t) {
        const Int8Activations* a = rows + t * row_blocks + b * subs;
        for (uint32_t sub = 0; sub < subs; ++sub) {
          acc[t] = AddBlock(w + sub * kInt8Block, scales, sub, HasMinimum(type), a[sub], acc[t]);
        }
      }
    }
    for (uint64_t t = 0; t < x.n; ++t) task.y[t * task.y_stride + r] = acc[t];
  }
}

}  // namespace tandem::ref
