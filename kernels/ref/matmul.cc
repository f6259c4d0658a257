// y(n, rows) = x(n, cols) * W^T, with f32 activations, as they are or rounded to BF16, or int8 ones
// (kernels/int8_block.h).
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

// A block of activations as int8; what that leaves over stays in x.
Int8Activations TakeBlock(float* x) {
  float absmax = 0.0f;
  bool finite = true;
  for (uint64_t i = 0; i < kInt8Block; ++i) {
    finite = finite && std::isfinite(x[i]);
    absmax = std::max(absmax, std::fabs(x[i]));
  }
  const bool zero = !finite || absmax < kInt8Tiny;
  Int8Activations block;
  block.scale = finite ? (zero ? 0.0f : absmax / 127.0f) : NAN;
  const float inverse = zero ? 0.0f : 127.0f / absmax;
  for (uint64_t i = 0; i < kInt8Block; ++i) {
    block.q[i] = zero ? 0 : static_cast<int8_t>(std::nearbyint(x[i] * inverse));
    x[i] -= block.scale * static_cast<float>(block.q[i]);
  }
  return block;
}

}  // namespace

const std::byte* PackedRow(const PackedMatrix& w, uint64_t row, uint64_t col) {
  return w.data + (row - w.slice.row_begin) * RowBytes(w.type, w.slice.cols()) +
         RowBytes(w.type, col - w.slice.col_begin);
}

void QuantizeActivations(const float* x, uint64_t n, uint64_t cols, Int8Parts parts,
                         Int8Activations* out) {
  const uint64_t row_blocks = cols / kInt8Block;
  for (uint64_t t = 0; t < n; ++t) {
    std::vector<float> left(x + t * cols, x + (t + 1) * cols);
    for (int part = 0; part < static_cast<int>(parts); ++part) {
      for (uint64_t b = 0; b < row_blocks; ++b) *out++ = TakeBlock(&left[b * kInt8Block]);
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
  const DTypeTraits& traits = Traits(type);
  const uint64_t row_blocks = x.cols / kInt8Block;
  const uint32_t subs = traits.block_elems / kInt8Block;
  const auto* rows = reinterpret_cast<const Int8Activations*>(x.narrow);
  const auto parts = static_cast<uint64_t>(x.parts);
  std::vector<float> acc(x.n * parts);
  for (uint64_t r = 0; r < task.slice.rows(); ++r) {
    const std::byte* row = PackedRow(*task.w, task.slice.row_begin + r, task.slice.col_begin);
    std::fill(acc.begin(), acc.end(), 0.0f);
    for (uint64_t b = 0; b < x.cols / traits.block_elems; ++b) {
      int8_t w[kMaxBlockElems];
      ReadCodes(type, row + b * traits.block_bytes, w);
      const BlockScales scales = ReadScales(type, row + b * traits.block_bytes);
      for (uint64_t i = 0; i < acc.size(); ++i) {
        const Int8Activations* a = rows + i * row_blocks + b * subs;
        for (uint32_t sub = 0; sub < subs; ++sub) {
          acc[i] = AddBlock(w + sub * kInt8Block, scales, sub, HasMinimum(type), a[sub], acc[i]);
        }
      }
    }
    for (uint64_t t = 0; t < x.n; ++t) {
      float& y = task.y[t * task.y_stride + r];
      y = acc[t * parts];
      if (x.parts == Int8Parts::kTwo) y += acc[t * parts + 1];
    }
  }
}

}  // namespace tandem::ref
