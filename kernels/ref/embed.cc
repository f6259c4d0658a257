// out (n, hidden) = rows `ids` of the table; zeros where the slice does not hold the id, so that
// partial tables sum to the whole.
#include <algorithm>

#include "kernels/ref/ref.h"

namespace tandem::ref {

void Embed(const PackedMatrix& table, const MatrixSlice& slice, std::span<const int32_t> ids,
           float* out) {
  const uint64_t hidden = slice.cols();
  for (size_t t = 0; t < ids.size(); ++t) {
    float* row = out + t * hidden;
    const auto id = static_cast<uint64_t>(ids[t]);
    if (ids[t] < 0 || id < slice.row_begin || id >= slice.row_end) {
      std::fill(row, row + hidden, 0.0f);
    } else {
      DequantizeRow(table.type, PackedRow(table, id, slice.col_begin), row, hidden);
    }
  }
}

}  // namespace tandem::ref
