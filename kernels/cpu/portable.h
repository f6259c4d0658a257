// The portable tier: plain C++ over arrays of kLanes, written so that a compiler turns the lane
// loops into vector code at the baseline instruction set. Compiled with -ffp-contract=off, so that
// a loop rounds the same however it is tiled.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/cpu/tier.h"

namespace tandem::cpu::portable {

inline constexpr uint32_t kLanes = 8;

void MatMulInt8(const PanelJob& job);
void MatMulF32(const PanelJob& job);

void Quantize(const float* x, uint64_t blocks, PreparedBlock* out);
void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden, float* y);
void Add(const float* x, const float* y, uint64_t n, float* out);
void SwiGlu(const float* gate, const float* up, uint64_t n, float* out);
void Rotate(const RotateJob& job);
void ToF16(const float* x, uint64_t n, uint16_t* out);

void AttendFold(const FoldJob& job);
void JoinFolds(const FoldState& state, const FoldState& later, uint64_t head_dim);

// exp(x) to some 2 ulp; 0 below -87.3, huge but finite above 88.
float Exp(float x);

// f16 bits to f32 without branches or calls, so that a loop of it becomes vector code. Scaling by
// 2^112 moves the exponent's bias from 15 to 127 and normalises subnormals.
inline float Widen(uint16_t bits) {
  const float magnitude = std::bit_cast<float>(uint32_t{bits & 0x7fffu} << 13) * 0x1p112f;
  const uint32_t special = (bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;  // infinity and NaN
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | special | sign);
}

}  // namespace tandem::cpu::portable
