// Scratch of one device within one op: handed out front to back, given back all at once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/base/check.h"

namespace tandem {

// A stretch of a device's memory.
struct ScratchRoom {
  std::byte* data = nullptr;
  uint64_t size = 0;
};

class Scratch {
 public:
  explicit Scratch(ScratchRoom room) : room_(room) {}

  // `n` elements, aligned to 64 bytes.
  template <typename T>
  T* Take(uint64_t n) {
    const uint64_t at = used_;
    used_ += Room(n * sizeof(T));
    Check(used_ <= room_.size, "scratch: an op needs more than its device has");
    return reinterpret_cast<T*>(room_.data + at);
  }
  std::byte* rest() const { return room_.data + used_; }
  uint64_t left() const { return room_.size - used_; }

  // What Take uses up for `bytes`.
  static uint64_t Room(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  ScratchRoom room_;
  uint64_t used_ = 0;
};

// Cuts the last `n` elements off a room, aligned to 64 bytes.
template <typename T>
T* TakeBack(ScratchRoom& room, uint64_t n) {
  const uint64_t bytes = Scratch::Room(n * sizeof(T));
  Check(bytes <= room.size, "scratch: an op needs more than its device has");
  room.size = (room.size - bytes) / 64 * 64;
  return reinterpret_cast<T*>(room.data + room.size);
}

// The most rows, of `want`, whose `bytes(rows)` fit; at least one.
template <typename BytesOf>
uint32_t RowsThatFit(uint32_t want, uint64_t room, const BytesOf& bytes) {
  uint32_t rows = want;
  while (rows > 1 && bytes(rows) > room) rows = (rows + 1) / 2;
  Check(bytes(rows) <= room, "executor: scratch for one row");
  return rows;
}

}  // namespace tandem
