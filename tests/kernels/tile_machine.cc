#include "tests/kernels/tile_machine.h"

#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace tandem {
namespace {

void Print(const char* text) { (void)!write(STDERR_FILENO, text, std::strlen(text)); }

// Subnormals are zero, on the way in and on the way out.
float Flushed(float x) {
  return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

float FromBf16(const uint8_t* at) {
  uint16_t half;
  std::memcpy(&half, at, sizeof(half));
  const uint32_t bits = uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return Flushed(value);
}

template <typename T>
T Read(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

}  // namespace

void TileFault(const char* op, const char* reason) {
  Print("tile machine: ");
  Print(op);
  Print(": ");
  Print(reason);
  Print("\n");
  std::abort();
}

void TileMachine::LoadConfig(const void* config) {
  constexpr const char* kOp = "ldtilecfg";
  uint8_t bytes[64];
  std::memcpy(bytes, config, sizeof(bytes));
  if (bytes[0] != 1) TileFault(kOp, "the palette is not 1");
  if (bytes[1] != 0) TileFault(kOp, "the start row is not 0");
  for (int i = 2; i < 16; ++i) {
    if (bytes[i] != 0) TileFault(kOp, "a reserved byte is not zero");
  }
  for (int t = 0; t < 16; ++t) {
    const uint32_t row_bytes = Read<uint16_t>(bytes + 16 + 2 * t);
    const uint32_t rows = bytes[48 + t];
    if (t >= kTiles && (rows != 0 || row_bytes != 0)) TileFault(kOp, "more than eight tiles");
    if (rows > kRows || row_bytes > kRowBytes) TileFault(kOp, "a tile is too large");
    if ((rows == 0) != (row_bytes == 0)) TileFault(kOp, "a tile has only rows or only columns");
    if (t < kTiles) tiles_[t] = Tile{rows, row_bytes};
  }
  configured_ = true;
}

void TileMachine::Release() {
  for (Tile& tile : tiles_) tile = Tile{};
  configured_ = false;
}

TileMachine::Tile& TileMachine::Usable(int tile, const char* op) {
  if (!configured_) TileFault(op, "the tiles have no configuration");
  if (tile >= kTiles || tiles_[tile].rows == 0) TileFault(op, "the tile has no shape");
  return tiles_[tile];
}

void TileMachine::Zero(int tile) {
  std::memset(Usable(tile, "tilezero").data, 0, sizeof(Tile::data));
}

void TileMachine::Load(int tile, const void* at, int64_t stride) {
  Tile& to = Usable(tile, "tileloadd");
  std::memset(to.data, 0, sizeof(to.data));
  const auto* from = static_cast<const uint8_t*>(at);
  for (uint32_t r = 0; r < to.rows; ++r) std::memcpy(to.data[r], from + r * stride, to.row_bytes);
}

void TileMachine::Store(int tile, void* at, int64_t stride) {
  const Tile& from = Usable(tile, "tilestored");
  auto* to = static_cast<uint8_t*>(at);
  for (uint32_t r = 0; r < from.rows; ++r) {
    std::memcpy(to + r * stride, from.data[r], from.row_bytes);
  }
}

void TileMachine::CheckDot(const Tile& c, const Tile& a, const Tile& b, const char* op) const {
  if (&c == &a || &c == &b || &a == &b) TileFault(op, "a tile is named twice");
  if (a.row_bytes % 4 != 0 || b.row_bytes % 4 != 0 || c.row_bytes % 4 != 0) {
    TileFault(op, "a row is no multiple of four bytes");
  }
  if (c.rows != a.rows || c.row_bytes != b.row_bytes || a.row_bytes / 4 != b.rows) {
    TileFault(op, "the shapes do not fit each other");
  }
}

void TileMachine::DotInt8(int c, int a, int b) {
  constexpr const char* kOp = "tdpbssd";
  Tile& sums = Usable(c, kOp);
  const Tile& left = Usable(a, kOp);
  const Tile& right = Usable(b, kOp);
  CheckDot(sums, left, right, kOp);
  for (uint32_t m = 0; m < sums.rows; ++m) {
    for (uint32_t n = 0; n < sums.row_bytes / 4; ++n) {
      uint8_t* at = sums.data[m] + 4 * n;
      uint32_t sum = Read<uint32_t>(at);  // wraps
      for (uint32_t k = 0; k < left.row_bytes; ++k) {
        const int32_t x = static_cast<int8_t>(left.data[m][k]);
        const int32_t y = static_cast<int8_t>(right.data[k / 4][4 * n + k % 4]);
        sum += static_cast<uint32_t>(x * y);
      }
      std::memcpy(at, &sum, sizeof(sum));
    }
  }
}

void TileMachine::DotBf16(int c, int a, int b) {
  constexpr const char* kOp = "tdpbf16ps";
  Tile& sums = Usable(c, kOp);
  const Tile& left = Usable(a, kOp);
  const Tile& right = Usable(b, kOp);
  CheckDot(sums, left, right, kOp);
  for (uint32_t m = 0; m < sums.rows; ++m) {
    for (uint32_t n = 0; n < sums.row_bytes / 4; ++n) {
      float chain[2] = {0.0f, 0.0f};
      for (uint32_t k = 0; k < left.row_bytes / 4; ++k) {
        for (uint32_t i = 0; i < 2; ++i) {
          const float x = FromBf16(left.data[m] + 4 * k + 2 * i);
          const float y = FromBf16(right.data[k] + 4 * n + 2 * i);
          chain[i] = Flushed(std::fma(x, y, chain[i]));
        }
      }
      uint8_t* at = sums.data[m] + 4 * n;
      const float sum = Flushed(Flushed(Read<float>(at)) + Flushed(chain[0] + chain[1]));
      std::memcpy(at, &sum, sizeof(sum));
    }
  }
}

}  // namespace tandem
