// Panel products of the portable tier.  y(n, rows) = x(n, cols) * W^T
//
// int8: 16-bit products of a 4-bit weight stay below 2^15 over a block of 32 (16 columns a 16-bit
// cell, 15 * 127 each), so a block is summed in 16 bits. Wider weights are summed in 32 bits.
// f32: columns in order, one chain a lane.
#include <cstring>

#include "kernels/cpu/portable.h"
#include "kernels/cpu/tier_panels.h"
#include "kernels/int8_block.h"

namespace tandem::cpu::portable {
namespace {

constexpr uint64_t kTile =
    256;  // columns of f32 weights unpacked at a time; whole blocks of any type

void LoadHalves(const std::byte* at, float* out) {
  uint16_t bits[kLanes];
  std::memcpy(bits, at, sizeof(bits));
  for (uint32_t i = 0; i < kLanes; ++i) out[i] = Widen(bits[i]);
}

// One unpacked group of 32 columns of a panel. 16-bit cells: cell 2*lane + h of step s meets
// activation Column(s, h); a group has 16 steps, the first eight of them its first half.
struct Group {
  int16_t q[16][2 * kLanes];  // stored codes, which may have an offset
  float d[kLanes];
  float m[kLanes];         // to be added
  int32_t sub[2][kLanes];  // scales of the halves, of Q6_K
};

// Which two columns the cells of step s hold.
constexpr uint32_t Column(uint32_t step, uint32_t half) {
  return step / 2 * 4 + step % 2 + 2 * half;
}

void LoadDwords(const std::byte* at, uint32_t* out) { std::memcpy(out, at, kLanes * sizeof(*out)); }

// Calls put(step, cell, value) for the bits [shift, shift + bits) of each byte of a dword that
// holds columns 4 * four ... of each lane.
template <typename Put>
void ForFour(const uint32_t* dwords, uint32_t four, uint32_t shift, uint32_t bits, Put put) {
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    for (uint32_t byte = 0; byte < 4; ++byte) {
      const uint32_t value = dwords[lane] >> (8 * byte + shift) & ((1u << bits) - 1);
      put(2 * four + byte % 2, 2 * lane + byte / 2, value);
    }
  }
}

void UnpackCodes(const PanelFormat& format, const std::byte* at, Group& group) {
  const auto set = [&](uint32_t step, uint32_t cell, uint32_t value) {
    group.q[step][cell] = static_cast<int16_t>(value);
  };
  const auto raise = [&](uint32_t step, uint32_t cell, uint32_t value) {
    group.q[step][cell] = static_cast<int16_t>(group.q[step][cell] | value << 4);
  };
  constexpr uint32_t kDwordBytes = 4 * kLanes;
  uint32_t dwords[kLanes];
  if (format.bits == 8) {
    for (uint32_t four = 0; four < 8; ++four) {
      LoadDwords(at + four * kDwordBytes, dwords);
      ForFour(dwords, four, 0, 8, [&](uint32_t step, uint32_t cell, uint32_t value) {
        group.q[step][cell] = static_cast<int8_t>(value);
      });
    }
    return;
  }
  for (uint32_t four = 0; four < 4; ++four) {
    LoadDwords(at + four * kDwordBytes, dwords);
    ForFour(dwords, four, 0, 4, set);
    ForFour(dwords, four + 4, 4, 4, set);
  }
  const uint32_t high_bits = format.bits - 4;
  for (uint32_t h = 0; h < high_bits; ++h) {
    LoadDwords(at + (4 + h) * kDwordBytes, dwords);
    const uint32_t fours = 8 / high_bits;
    for (uint32_t k = 0; k < fours; ++k) {
      ForFour(dwords, h * fours + k, k * high_bits, high_bits, raise);
    }
  }
}

// The six-bit scale or minimum `sub` of the packed dwords (panel.h).
uint32_t SixBits(uint32_t own, uint32_t shared, uint32_t shared_shift, uint32_t sub) {
  if (sub < 4) return own >> (8 * sub) & 63;
  const uint32_t byte = 8 * (sub - 4);
  return (shared >> (byte + shared_shift) & 15) | (own >> (byte + 6) & 3) << 4;
}

// Group `sub` of a block.
void UnpackGroup(DType type, const std::byte* block, uint32_t sub, Group& group) {
  const PanelFormat format = FormatOf(type);
  UnpackCodes(format, block + (format.groups_at + sub * format.group_bytes) * kLanes, group);
  const std::byte* fields = block + format.fields_at * kLanes;
  LoadHalves(fields, group.d);
  if (format.minimum) LoadHalves(fields + 2 * kLanes, group.m);
  if (type == DType::kQ6_K) {
    uint32_t scales[kLanes];
    LoadDwords(block + sub / 2 * sizeof(scales), scales);
    for (uint32_t i = 0; i < kLanes; ++i) {
      for (uint32_t half = 0; half < 2; ++half) {
        group.sub[half][i] = static_cast<int8_t>(scales[i] >> (16 * (sub % 2) + 8 * half) & 255);
      }
    }
  } else if (format.sub_scales) {
    uint32_t dwords[3][kLanes];
    for (uint32_t i = 0; i < 3; ++i) LoadDwords(block + i * sizeof(dwords[0]), dwords[i]);
    for (uint32_t i = 0; i < kLanes; ++i) {
      group.d[i] *= static_cast<float>(SixBits(dwords[0][i], dwords[2][i], 0, sub));
      group.m[i] *= -static_cast<float>(SixBits(dwords[1][i], dwords[2][i], 4, sub));
    }
  }
}

// Products of 4-bit codes, all 32 of each lane, summed in 16 bits: exact.
void DotNarrow(const Group& group, const int8_t* a, int32_t* dot) {
  int16_t cells[2 * kLanes] = {};
  for (uint32_t s = 0; s < 16; ++s) {
    int16_t pair[2 * kLanes];
    for (uint32_t i = 0; i < kLanes; ++i) {
      pair[2 * i] = a[Column(s, 0)];
      pair[2 * i + 1] = a[Column(s, 1)];
    }
    for (uint32_t i = 0; i < 2 * kLanes; ++i) {
      cells[i] = static_cast<int16_t>(cells[i] + group.q[s][i] * pair[i]);
    }
  }
  for (uint32_t i = 0; i < kLanes; ++i) dot[i] = cells[2 * i] + cells[2 * i + 1];
}

// Products of any codes over some steps: exact in 32 bits.
void DotWide(const Group& group, uint32_t begin, uint32_t end, const int8_t* a, int32_t* dot) {
  int32_t cells[2 * kLanes] = {};
  for (uint32_t s = begin; s < end; ++s) {
    const int32_t pair[2] = {a[Column(s, 0)], a[Column(s, 1)]};
    for (uint32_t i = 0; i < 2 * kLanes; ++i) cells[i] += group.q[s][i] * pair[i % 2];
  }
  for (uint32_t i = 0; i < kLanes; ++i) dot[i] = cells[2 * i] + cells[2 * i + 1];
}

// The integer sum of a group for each lane: weights less their offset, halves by their scales.
void Dot(DType type, const Group& group, const PreparedBlock& a, int32_t* dot) {
  const PanelFormat format = FormatOf(type);
  if (type == DType::kQ6_K) {
    int32_t second[kLanes];
    DotWide(group, 0, 8, a.q, dot);
    DotWide(group, 8, 16, a.q, second);
    const int32_t shift = format.offset * a.half_sum;
    const int32_t second_shift = format.offset * (a.sum - a.half_sum);
    for (uint32_t i = 0; i < kLanes; ++i) {
      dot[i] = group.sub[0][i] * (dot[i] - shift) + group.sub[1][i] * (second[i] - second_shift);
    }
    return;
  }
  if (format.bits == 4) {
    DotNarrow(group, a.q, dot);
  } else {
    DotWide(group, 0, 16, a.q, dot);
  }
  for (uint32_t i = 0; i < kLanes; ++i) dot[i] -= format.offset * a.sum;
}

void AddGroup(DType type, const Group& group, const PreparedBlock& a, float* acc) {
  int32_t dot[kLanes];
  Dot(type, group, a, dot);
  for (uint32_t i = 0; i < kLanes; ++i) {
    acc[i] += group.d[i] * a.scale * static_cast<float>(dot[i]);
  }
  if (FormatOf(type).minimum) {
    for (uint32_t i = 0; i < kLanes; ++i) acc[i] += group.m[i] * a.scaled_sum;
  }
}

// Columns [0, cols) of a panel as f32, column by column.  out (cols, kLanes)
void UnpackF32(DType type, const std::byte* at, uint64_t cols, float* out) {
  if (!Traits(type).quantized) {
    const uint64_t elems = cols * kLanes;
    if (type == DType::kF32) {
      std::memcpy(out, at, elems * sizeof(float));
      return;
    }
    for (uint64_t i = 0; i < elems; ++i) {
      uint16_t bits;
      std::memcpy(&bits, at + i * sizeof(bits), sizeof(bits));
      out[i] = type == DType::kF16 ? Widen(bits) : std::bit_cast<float>(uint32_t{bits} << 16);
    }
    return;
  }
  const PanelFormat format = FormatOf(type);
  for (uint64_t g = 0; g < cols / kInt8Block; ++g) {
    Group group{};
    UnpackGroup(type, at + g / format.groups * format.block_bytes * kLanes,
                static_cast<uint32_t>(g % format.groups), group);
    for (uint32_t s = 0; s < 16; ++s) {
      for (uint32_t half = 0; half < 2; ++half) {
        float* column = out + (g * kInt8Block + Column(s, half)) * kLanes;
        for (uint32_t i = 0; i < kLanes; ++i) {
          float d = group.d[i];
          if (type == DType::kQ6_K) d *= static_cast<float>(group.sub[s / 8][i]);
          column[i] = d * static_cast<float>(group.q[s][2 * i + half] - format.offset) + group.m[i];
        }
      }
    }
  }
}

template <typename Body>
void ForEachPanel(const PanelJob& job, Body body) {
  LanesWalk<kLanes> walk(job);
  for (PanelSpan span; walk.Next(span);) body(span);
}

void Store(const PanelSpan& span, const float* acc, float* y) {
  for (uint64_t i = span.lane_begin; i < span.lane_end; ++i) y[i - span.lane_begin] = acc[i];
}

}  // namespace

void MatMulInt8(const PanelJob& job) {
  constexpr uint64_t kTokens = 16;
  const uint64_t blocks = job.cols / kInt8Block;
  const PanelFormat format = FormatOf(job.type);
  ForEachPanel(job, [&](const PanelSpan& span) {
    for (uint64_t t0 = 0; t0 < job.n; t0 += kTokens) {
      const uint64_t tokens = job.n - t0 < kTokens ? job.n - t0 : kTokens;
      float acc[kTokens][kLanes] = {};
      for (uint64_t b = 0; b < blocks; ++b) {
        Group group;
        UnpackGroup(job.type, span.at + b / format.groups * format.block_bytes * kLanes,
                    static_cast<uint32_t>(b % format.groups), group);
        for (uint64_t t = 0; t < tokens; ++t) {
          AddGroup(job.type, group, job.int8[(t0 + t) * blocks + b], acc[t]);
        }
      }
      for (uint64_t t = 0; t < tokens; ++t) Store(span, acc[t], span.y + (t0 + t) * job.y_stride);
    }
  });
}

void MatMulF32(const PanelJob& job) {
  constexpr uint64_t kTokens = 16;
  const uint64_t block_elems = Traits(job.type).block_elems;
  const uint64_t block_bytes = uint64_t{kLanes} * Traits(job.type).block_bytes;
  ForEachPanel(job, [&](const PanelSpan& span) {
    for (uint64_t t0 = 0; t0 < job.n; t0 += kTokens) {
      const uint64_t tokens = job.n - t0 < kTokens ? job.n - t0 : kTokens;
      float acc[kTokens][kLanes] = {};
      for (uint64_t c0 = 0; c0 < job.cols; c0 += kTile) {
        const uint64_t cols = job.cols - c0 < kTile ? job.cols - c0 : kTile;
        float w[kTile * kLanes];
        UnpackF32(job.type, span.at + c0 / block_elems * block_bytes, cols, w);
        for (uint64_t t = 0; t < tokens; ++t) {
          const float* x = job.f32 + (t0 + t) * job.cols + c0;
          for (uint64_t c = 0; c < cols; ++c) {
            for (uint32_t i = 0; i < kLanes; ++i) acc[t][i] += w[c * kLanes + i] * x[c];
          }
        }
      }
      for (uint64_t t = 0; t < tokens; ++t) Store(span, acc[t], span.y + (t0 + t) * job.y_stride);
    }
  });
}

}  // namespace tandem::cpu::portable
