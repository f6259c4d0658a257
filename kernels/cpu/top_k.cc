// One pass over the row with the best so far kept in order: most values are no better than the last
// of them, and go no further than one comparison.
#include "kernels/cpu/top_k.h"

#include <algorithm>

namespace tandem::cpu {

void TopKOfRow(const float* x, uint32_t width, uint32_t k, TopEntry* out) {
  uint32_t held = 0;
  for (uint32_t i = 0; i < width; ++i) {
    const float value = x[i];
    if (value != value) {
      std::fill_n(out, k, TopEntry{0, kNotANumber});
      return;
    }
    // A later column is behind those of the same value.
    if (held == k && !(value > out[k - 1].value)) continue;
    uint32_t at = held < k ? held++ : k - 1;
    for (; at > 0 && value > out[at - 1].value; --at) out[at] = out[at - 1];
    out[at] = TopEntry{value, static_cast<int32_t>(i)};
  }
  std::fill(out + held, out + k, TopEntry{0, kNoEntry});
}

}  // namespace tandem::cpu
