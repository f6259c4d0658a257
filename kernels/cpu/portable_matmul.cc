// Panel products of the portable tier.  y(n, rows) = x(n, cols) * W^T
//
// int8: 16-bit products of a 4-bit weight stay below 2^15 over a block of 32 (16 columns a 16-bit
// cell, 15 * 127 each), so a block is summed in 16 bits. 8-bit weights are summed in 32 bits.
// f32: columns in order, one chain a lane.
#include <cstring>

#include "kernels/cpu/portable.h"
#include "kernels/int8_block.h"

namespace tandem::cpu::portable {
namespace {

constexpr uint64_t kTile = 256;  // columns of f32 weights unpacked at a time

void LoadHalves(const std::byte* at, float* out) {
  uint16_t bits[kLanes];
  std::memcpy(bits, at, sizeof(bits));
  for (uint32_t i = 0; i < kLanes; ++i) out[i] = Widen(bits[i]);
}

// One unpacked block of a panel. 16-bit cells: cell 2*lane + h of step s meets activation
// index[s][h]; a block has 16 steps.
struct Block {
  int16_t q[16][2 * kLanes];
  float d[kLanes];
  float m[kLanes];
};

// Which two columns the cells of step s hold.
constexpr uint32_t Column(uint32_t step, uint32_t half) {
  return step / 2 * 4 + step % 2 + 2 * half;
}

void UnpackBlock(DType type, const std::byte* at, Block& block) {
  const bool wide = type == DType::kQ8_0;
  for (uint32_t group = 0; group < (wide ? 8u : 4u); ++group) {
    uint32_t dwords[kLanes];
    std::memcpy(dwords, at + group * sizeof(dwords), sizeof(dwords));
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      for (uint32_t byte = 0; byte < 4; ++byte) {
        const uint32_t value = dwords[lane] >> (8 * byte) & 255;
        const uint32_t step = 2 * group + byte % 2;
        const uint32_t cell = 2 * lane + byte / 2;
        if (wide) {
          block.q[step][cell] = static_cast<int8_t>(value);
        } else {
          block.q[step][cell] = static_cast<int16_t>(value & 15);
          block.q[step + 8][cell] = static_cast<int16_t>(value >> 4);
        }
      }
    }
  }
  const std::byte* fields = at + (wide ? 32 : 16) * kLanes;
  LoadHalves(fields, block.d);
  if (type == DType::kQ4_1) LoadHalves(fields + 2 * kLanes, block.m);
}

// The 32 products of each lane, summed: exact.
void Dot(DType type, const Block& block, const int8_t* a, int32_t* dot) {
  if (type == DType::kQ8_0) {
    int32_t cells[2 * kLanes] = {};
    for (uint32_t s = 0; s < 16; ++s) {
      const int32_t pair[2] = {a[Column(s, 0)], a[Column(s, 1)]};
      for (uint32_t i = 0; i < 2 * kLanes; ++i) cells[i] += block.q[s][i] * pair[i % 2];
    }
    for (uint32_t i = 0; i < kLanes; ++i) dot[i] = cells[2 * i] + cells[2 * i + 1];
    return;
  }
  int16_t cells[2 * kLanes] = {};
  for (uint32_t s = 0; s < 16; ++s) {
    int16_t pair[2 * kLanes];
    for (uint32_t i = 0; i < kLanes; ++i) {
      pair[2 * i] = a[Column(s, 0)];
      pair[2 * i + 1] = a[Column(s, 1)];
    }
    for (uint32_t i = 0; i < 2 * kLanes; ++i) {
      cells[i] = static_cast<int16_t>(cells[i] + block.q[s][i] * pair[i]);
    }
  }
  for (uint32_t i = 0; i < kLanes; ++i) dot[i] = cells[2 * i] + cells[2 * i + 1];
}

void AddBlock(DType type, const Block& block, const PreparedBlock& a, float* acc) {
  int32_t dot[kLanes];
  Dot(type, block, a.q, dot);
  if (type == DType::kQ4_0) {
    for (uint32_t i = 0; i < kLanes; ++i) dot[i] -= 8 * a.sum;
  }
  for (uint32_t i = 0; i < kLanes; ++i) {
    acc[i] += block.d[i] * a.scale * static_cast<float>(dot[i]);
  }
  if (type == DType::kQ4_1) {
    for (uint32_t i = 0; i < kLanes; ++i) acc[i] += block.m[i] * a.scaled_sum;
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
  const float offset = type == DType::kQ4_0 ? -8.0f : 0.0f;
  const uint64_t block_bytes = uint64_t{kLanes} * Traits(type).block_bytes;
  for (uint64_t b = 0; b < cols / kInt8Block; ++b) {
    Block block{};
    UnpackBlock(type, at + b * block_bytes, block);
    for (uint32_t s = 0; s < 16; ++s) {
      for (uint32_t half = 0; half < 2; ++half) {
        float* column = out + (b * kInt8Block + Column(s, half)) * kLanes;
        for (uint32_t i = 0; i < kLanes; ++i) {
          column[i] =
              block.d[i] * (static_cast<float>(block.q[s][2 * i + half]) + offset) + block.m[i];
        }
      }
    }
  }
}

// The part of a job that one panel covers: which lanes are wanted and where they go.
struct PanelSpan {
  const std::byte* at;
  uint32_t lane_begin;
  uint32_t lane_end;
  float* y;  // of lane_begin
};

template <typename Body>
void ForEachPanel(const PanelJob& job, Body body) {
  const std::byte* at = job.panels;
  uint64_t row = job.row_begin;
  float* y = job.y;
  while (row < job.row_end) {
    const uint64_t first = row / kLanes * kLanes;
    const uint64_t end = first + kLanes < job.row_end ? first + kLanes : job.row_end;
    body(PanelSpan{at, static_cast<uint32_t>(row - first), static_cast<uint32_t>(end - first), y});
    y += end - row;
    row = end;
    at += job.panel_stride;
  }
}

void Store(const PanelSpan& span, const float* acc, float* y) {
  for (uint32_t i = span.lane_begin; i < span.lane_end; ++i) y[i - span.lane_begin] = acc[i];
}

}  // namespace

void MatMulInt8(const PanelJob& job) {
  constexpr uint64_t kTokens = 16;
  const uint64_t blocks = job.cols / kInt8Block;
  const uint64_t block_bytes = uint64_t{kLanes} * Traits(job.type).block_bytes;
  ForEachPanel(job, [&](const PanelSpan& span) {
    for (uint64_t t0 = 0; t0 < job.n; t0 += kTokens) {
      const uint64_t tokens = job.n - t0 < kTokens ? job.n - t0 : kTokens;
      float acc[kTokens][kLanes] = {};
      for (uint64_t b = 0; b < blocks; ++b) {
        Block block;
        UnpackBlock(job.type, span.at + b * block_bytes, block);
        for (uint64_t t = 0; t < tokens; ++t) {
          AddBlock(job.type, block, job.int8[(t0 + t) * blocks + b], acc[t]);
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
