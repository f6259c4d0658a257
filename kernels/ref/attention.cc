// out = softmax(q k^T / sqrt(hd)) v over positions [0, position] of the row's own sequence, of
// which a window keeps the last ones. q, out (n, q_heads, hd); query head h reads KV head h /
// (q_heads / kv_heads).
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/ref/ref.h"

namespace tandem::ref {
namespace {

// The keys and values of one KV head, as f32.
struct Past {
  std::vector<float> keys;    // (positions, hd)
  std::vector<float> values;  // (positions, hd)
};

Past ReadPast(const SequenceRows& sequence, uint32_t head, const KvView& kv) {
  Past past;
  for (uint32_t s = 0; s < sequence.start + sequence.n_rows; ++s) {
    const uint16_t* key = KeyAt(kv, sequence, s, head);
    const uint16_t* value = ValueAt(kv, sequence, s, head);
    for (uint32_t d = 0; d < kv.head_dim; ++d) {
      past.keys.push_back(F16ToF32(key[d]));
      past.values.push_back(F16ToF32(value[d]));
    }
  }
  return past;
}

// One query vector over positions [first, count).  q, out (hd)
void AttendOne(const float* q, const Past& past, uint32_t first, uint32_t count, uint32_t hd,
               float* out) {
  std::vector<double> p(count);
  double top = -std::numeric_limits<double>::infinity();
  for (uint32_t s = first; s < count; ++s) {
    const float* key = past.keys.data() + uint64_t{s} * hd;
    double dot = 0.0;
    for (uint32_t d = 0; d < hd; ++d) dot += double{q[d]} * key[d];
    p[s] = dot / std::sqrt(static_cast<double>(hd));
    top = std::max(top, p[s]);
  }
  double total = 0.0;
  for (uint32_t s = first; s < count; ++s) total += p[s] = std::exp(p[s] - top);
  std::vector<double> sum(hd, 0.0);
  for (uint32_t s = first; s < count; ++s) {
    const float* value = past.values.data() + uint64_t{s} * hd;
    for (uint32_t d = 0; d < hd; ++d) sum[d] += p[s] * value[d];
  }
  for (uint32_t d = 0; d < hd; ++d) out[d] = static_cast<float>(sum[d] / total);
}

}  // namespace

void Attention(const float* q, uint32_t q_heads, uint32_t window,
               std::span<const SequenceRows> sequences, const KvView& kv, float* out) {
  const uint32_t group = q_heads / kv.kv_heads;
  for (const SequenceRows& sequence : sequences) {
    for (uint32_t h = 0; h < q_heads; ++h) {
      const Past past = ReadPast(sequence, h / group, kv);
      for (uint32_t i = 0; i < sequence.n_rows; ++i) {
        const uint64_t at = ((uint64_t{sequence.first_row} + i) * q_heads + h) * kv.head_dim;
        const uint32_t count = sequence.start + i + 1;
        const uint32_t first = window > 0 && window < count ? count - window : 0;
        AttendOne(q + at, past, first, count, kv.head_dim, out + at);
      }
    }
  }
}

}  // namespace tandem::ref
