// Warp operations on the fragments that PTX defines for mma.sync and ldmatrix (PTX ISA, "Matrix
// Fragments"). Lane 4g + t holds, with g = lane / 4 and t = lane % 4:
//   A of 16 rows: registers 0 and 2 of row g, 1 and 3 of row g + 8; 0 and 1 the first half of k
//   B of 8 columns: column g
//   C: columns 2t and 2t + 1 of row g, then of row g + 8
#include <vector>

#include "engine/model/dtype.h"
#include "tests/support/cuda_emulation/gpu_platform.h"

namespace tandem::cuda {
namespace {

constexpr int kLanes = 32;

std::vector<float> MakeHalfTable() {
  std::vector<float> table(65536);
  for (uint32_t i = 0; i < table.size(); ++i) table[i] = F16ToF32(static_cast<uint16_t>(i));
  return table;
}
const float* HalfTable() {
  static const std::vector<float> table = MakeHalfTable();
  return table.data();
}

float WidenBf16(uint16_t bits) { return __uint_as_float(uint32_t{bits} << 16); }
float WidenF16(uint16_t bits) { return HalfTable()[bits]; }

// As tensor cores round: towards zero, as far as is known, and never better than one rounding of
// the whole.
float TowardsZero(double value) {
  const auto nearest = static_cast<float>(value);
  if (std::abs(double{nearest}) <= std::abs(value) || !std::isfinite(nearest)) return nearest;
  return std::nextafter(nearest, 0.0f);
}

template <typename C>
struct MmaSlot {
  C* d;
  const uint32_t* a;
  const uint32_t* b;
  const C* c;
};

// d (16, 8) = c + a (16, 16) b (16, 8) of 16-bit floats.
template <float (*kWiden)(uint16_t)>
void MultiplyFloats(void* const* slots) {
  double a[16][16];
  double b[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto* slot = static_cast<const MmaSlot<float>*>(slots[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + i % 2 * 8, k = 2 * t + i / 2 * 8;
      a[row][k] = kWiden(static_cast<uint16_t>(slot->a[i]));
      a[row][k + 1] = kWiden(static_cast<uint16_t>(slot->a[i] >> 16));
    }
    for (int i = 0; i < 2; ++i) {
      b[2 * t + 8 * i][g] = kWiden(static_cast<uint16_t>(slot->b[i]));
      b[2 * t + 8 * i + 1][g] = kWiden(static_cast<uint16_t>(slot->b[i] >> 16));
    }
  }
  double sums[16][8] = {};
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      const double value = a[row][k];
      for (int col = 0; col < 8; ++col) sums[row][col] += value * b[k][col];
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto* slot = static_cast<const MmaSlot<float>*>(slots[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      slot->d[i] = TowardsZero(slot->c[i] + sums[g + i / 2 * 8][2 * t + i % 2]);
    }
  }
}

int32_t ByteAt(uint32_t word, int i) { return static_cast<int8_t>(word >> (8 * i)); }

// d (16, 8) = c + a (16, 16 * kHalves) b (16 * kHalves, 8) of int8.
template <int kHalves>
void MultiplyBytes(void* const* slots) {
  int32_t a[16][16 * kHalves];
  int32_t b[16 * kHalves][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto* slot = static_cast<const MmaSlot<int32_t>*>(slots[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 2 * kHalves; ++i) {
      for (int j = 0; j < 4; ++j) a[g + i % 2 * 8][4 * t + i / 2 * 16 + j] = ByteAt(slot->a[i], j);
    }
    for (int i = 0; i < kHalves; ++i) {
      for (int j = 0; j < 4; ++j) b[4 * t + 16 * i + j][g] = ByteAt(slot->b[i], j);
    }
  }
  int32_t sums[16][8] = {};
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16 * kHalves; ++k) {
      const int32_t value = a[row][k];
      for (int col = 0; col < 8; ++col) sums[row][col] += value * b[k][col];
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto* slot = static_cast<const MmaSlot<int32_t>*>(slots[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) slot->d[i] = slot->c[i] + sums[g + i / 2 * 8][2 * t + i % 2];
  }
}

struct ShuffleSlot {
  float value;
  int mask;
  float result;
};

struct TransposedSlot {
  uint32_t* to;
  const uint16_t* row;
};

}  // namespace

float HalfToFloat(uint16_t bits) { return WidenF16(bits); }
uint16_t FloatToHalf(float value) { return F32ToF16(value); }

float ShuffleXor(float value, int mask) {
  ShuffleSlot slot{value, mask, 0.0f};
  WarpRendezvous(&slot, [](void* const* slots) {
    for (int lane = 0; lane < kLanes; ++lane) {
      auto* own = static_cast<ShuffleSlot*>(slots[lane]);
      own->result = static_cast<const ShuffleSlot*>(slots[lane ^ own->mask])->value;
    }
  });
  return slot.result;
}

bool AllLanes(bool holds) {
  struct Slot {
    bool own, all;
  } slot{holds, true};
  WarpRendezvous(&slot, [](void* const* slots) {
    bool all = true;
    for (int lane = 0; lane < kLanes; ++lane) all = all && static_cast<Slot*>(slots[lane])->own;
    for (int lane = 0; lane < kLanes; ++lane) static_cast<Slot*>(slots[lane])->all = all;
  });
  return slot.all;
}

void MmaS8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const int32_t (&c)[4]) {
  MmaSlot<int32_t> slot{d, a, b, c};
  WarpRendezvous(&slot, MultiplyBytes<2>);
}
void MmaS8Half(int32_t (&d)[4], const uint32_t (&a)[2], uint32_t b, const int32_t (&c)[4]) {
  MmaSlot<int32_t> slot{d, a, &b, c};
  WarpRendezvous(&slot, MultiplyBytes<1>);
}
void MmaBf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaSlot<float> slot{c, a, b, c};
  WarpRendezvous(&slot, MultiplyFloats<WidenBf16>);
}
void MmaF16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaSlot<float> slot{c, a, b, c};
  WarpRendezvous(&slot, MultiplyFloats<WidenF16>);
}

// Lane 8i + r gives row r of matrix i; lane (g, t) gets elements (2t, g) and (2t + 1, g) of each.
void LoadTransposed(uint32_t (&to)[4], const void* row) {
  TransposedSlot slot{to, static_cast<const uint16_t*>(row)};
  WarpRendezvous(&slot, [](void* const* slots) {
    const auto at = [&](int lane) { return static_cast<const TransposedSlot*>(slots[lane]); };
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int g = lane / 4, t = lane % 4;
        const uint32_t low = at(8 * i + 2 * t)->row[g];
        const uint32_t high = at(8 * i + 2 * t + 1)->row[g];
        at(lane)->to[i] = low | high << 16;
      }
    }
  });
}

}  // namespace tandem::cuda
