// Rotates pair i of every head of q and k by angle = position * frequency_i and multiplies it by
// the magnitude, then stores k and v as f16 (round to nearest even) into the pages.
//   frequency_i = theta^(-2i / rope_dim) / scale, unless the parameters give it
#include <cmath>

#include "kernels/ref/ref.h"

namespace tandem::ref {
namespace {

// heads (n_heads, head_dim): the vectors of one row.
void Rotate(float* heads, uint32_t n_heads, uint32_t head_dim, const RopeParams& rope,
            uint32_t position) {
  const uint32_t half = rope.rope_dim / 2;
  for (uint32_t i = 0; i < half; ++i) {
    const double frequency =
        rope.frequencies.empty()
            ? std::pow(double{rope.theta}, -2.0 * i / rope.rope_dim) / rope.scale
            : rope.frequencies[i];
    const float cosine = static_cast<float>(std::cos(position * frequency) * rope.magnitude);
    const float sine = static_cast<float>(std::sin(position * frequency) * rope.magnitude);
    const uint32_t first = rope.interleaved ? 2 * i : i;
    const uint32_t second = rope.interleaved ? 2 * i + 1 : i + half;
    for (uint32_t h = 0; h < n_heads; ++h) {
      float* head = heads + uint64_t{h} * head_dim;
      const float a = head[first];
      const float b = head[second];
      head[first] = a * cosine - b * sine;
      head[second] = a * sine + b * cosine;
    }
  }
}

std::byte* Page(const KvView& kv, const SequenceRows& sequence, uint32_t position) {
  return kv.base + static_cast<uint64_t>(sequence.pages[position / kPageTokens]) * kv.stride;
}

}  // namespace

uint16_t* KeyAt(const KvView& kv, const SequenceRows& sequence, uint32_t position, uint32_t head) {
  auto* page = reinterpret_cast<uint16_t*>(Page(kv, sequence, position));
  return page + (uint64_t{head} * kPageTokens + position % kPageTokens) * kv.head_dim;
}

uint16_t* ValueAt(const KvView& kv, const SequenceRows& sequence, uint32_t position,
                  uint32_t head) {
  return KeyAt(kv, sequence, position, kv.kv_heads + head);
}

void RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads, const RopeParams& rope,
                  std::span<const SequenceRows> sequences, const KvView& kv) {
  const uint32_t hd = kv.head_dim;
  for (const SequenceRows& sequence : sequences) {
    for (uint32_t i = 0; i < sequence.n_rows; ++i) {
      const uint64_t row = uint64_t{sequence.first_row} + i;
      const uint32_t position = sequence.start + i;
      float* k_row = k + row * kv.kv_heads * hd;
      const float* v_row = v + row * kv.kv_heads * hd;
      Rotate(q + row * q_heads * hd, q_heads, hd, rope, position);
      Rotate(k_row, kv.kv_heads, hd, rope, position);
      for (uint32_t h = 0; h < kv.kv_heads; ++h) {
        uint16_t* key = KeyAt(kv, sequence, position, h);
        uint16_t* value = ValueAt(kv, sequence, position, h);
        for (uint32_t d = 0; d < hd; ++d) {
          key[d] = F32ToF16(k_row[h * hd + d]);
          value[d] = F32ToF16(v_row[h * hd + d]);
        }
      }
    }
  }
}

}  // namespace tandem::ref
