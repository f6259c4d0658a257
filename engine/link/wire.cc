#include "engine/link/wire.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/base/check.h"
#include "engine/model/dtype.h"

namespace tandem {
namespace {

constexpr float kLargestF16 = 65504.0f;

struct Q8Block {
  uint16_t scale_bits = 0;
  int8_t q[kWireBlock] = {};
};

// Values beyond what a scale in f16 can carry saturate; NaN and infinity make the block NaN, so
// that trouble is seen and not hidden.
Q8Block QuantizeBlock(const float* x, uint64_t n) {
  Q8Block block;
  float largest = 0;
  bool finite = true;
  for (uint64_t i = 0; i < n; ++i) {
    finite = finite && std::isfinite(x[i]);
    largest = std::max(largest, std::fabs(x[i]));
  }
  if (!finite) {
    block.scale_bits = 0x7e00;  // a quiet NaN
    return block;
  }
  block.scale_bits = F32ToF16(std::min(largest / 127.0f, kLargestF16));
  const float scale = F16ToF32(block.scale_bits);
  if (scale == 0) return block;
  for (uint64_t i = 0; i < n; ++i) {
    block.q[i] = static_cast<int8_t>(std::clamp(std::nearbyint(x[i] / scale), -127.0f, 127.0f));
  }
  return block;
}

uint64_t BlockLength(uint64_t n, uint64_t begin) { return std::min(kWireBlock, n - begin); }

template <typename Store>
void DecodeEach(WireType wire, const std::byte* in, uint64_t n, Store store) {
  switch (wire) {
    case WireType::kF32: {
      for (uint64_t i = 0; i < n; ++i) {
        float value;
        std::memcpy(&value, in + 4 * i, 4);
        store(i, value);
      }
      return;
    }
    case WireType::kBf16: {
      for (uint64_t i = 0; i < n; ++i) {
        uint16_t bits;
        std::memcpy(&bits, in + 2 * i, 2);
        store(i, BF16ToF32(bits));
      }
      return;
    }
    case WireType::kQ8: {
      for (uint64_t begin = 0; begin < n; begin += kWireBlock) {
        const uint64_t length = BlockLength(n, begin);
        uint16_t bits;
        std::memcpy(&bits, in, 2);
        const float scale = F16ToF32(bits);
        for (uint64_t i = 0; i < length; ++i) {
          const auto q = static_cast<int8_t>(in[2 + i]);
          store(begin + i, scale * static_cast<float>(q));
        }
        in += 2 + length;
      }
      return;
    }
  }
  Check(false, "wire: unknown type");
}

}  // namespace

void EncodeWire(WireType wire, const float* x, uint64_t n, std::byte* out) {
  switch (wire) {
    case WireType::kF32:
      std::memcpy(out, x, 4 * n);
      return;
    case WireType::kBf16:
      for (uint64_t i = 0; i < n; ++i) {
        const uint16_t bits = F32ToBF16(x[i]);
        std::memcpy(out + 2 * i, &bits, 2);
      }
      return;
    case WireType::kQ8:
      for (uint64_t begin = 0; begin < n; begin += kWireBlock) {
        const uint64_t length = BlockLength(n, begin);
        const Q8Block block = QuantizeBlock(x + begin, length);
        std::memcpy(out, &block.scale_bits, 2);
        std::memcpy(out + 2, block.q, length);
        out += 2 + length;
      }
      return;
  }
  Check(false, "wire: unknown type");
}

void DecodeWire(WireType wire, const std::byte* in, uint64_t n, float* y) {
  if (wire == WireType::kF32) {
    std::memcpy(y, in, 4 * n);
    return;
  }
  DecodeEach(wire, in, n, [y](uint64_t i, float value) { y[i] = value; });
}

void DecodeAddWire(WireType wire, const std::byte* in, uint64_t n, float* y) {
  DecodeEach(wire, in, n, [y](uint64_t i, float value) { y[i] += value; });
}

void RoundToWire(WireType wire, const float* x, uint64_t n, float* y) {
  switch (wire) {
    case WireType::kF32:
      if (x != y) std::memcpy(y, x, 4 * n);
      return;
    case WireType::kBf16:
      for (uint64_t i = 0; i < n; ++i) y[i] = BF16ToF32(F32ToBF16(x[i]));
      return;
    case WireType::kQ8:
      for (uint64_t begin = 0; begin < n; begin += kWireBlock) {
        const uint64_t length = BlockLength(n, begin);
        const Q8Block block = QuantizeBlock(x + begin, length);
        const float scale = F16ToF32(block.scale_bits);
        for (uint64_t i = 0; i < length; ++i) y[begin + i] = scale * block.q[i];
      }
      return;
  }
  Check(false, "wire: unknown type");
}

}  // namespace tandem
