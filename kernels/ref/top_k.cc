// The k largest values of a row: all columns sorted by value, equal ones by column.
#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/ref/ref.h"

namespace tandem::ref {

void TopK(const float* x, uint64_t n, uint32_t width, uint32_t k, TopEntry* out) {
  std::vector<int32_t> order(width);
  for (uint64_t t = 0; t < n; ++t) {
    const float* row = x + t * width;
    TopEntry* to = out + t * k;
    if (std::any_of(row, row + width, [](float value) { return value != value; })) {
      std::fill_n(to, k, TopEntry{0, kNotANumber});
      continue;
    }
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return row[a] > row[b]; });
    for (uint32_t i = 0; i < k; ++i) {
      to[i] = i < width ? TopEntry{row[order[i]], order[i]} : TopEntry{0, kNoEntry};
    }
  }
}

}  // namespace tandem::ref
