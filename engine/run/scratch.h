// Scratch of one device within one op: handed out front to back, given back all at once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/base/check.h"
#include "engine/device/device.h"

namespace tandem {

class Scratch {
 public:
  explicit Scratch(const Buffer& buffer) : data_(buffer.data()), size_(buffer.size()) {}

  // `n` elements, aligned to 64 bytes.
  template <typename T>
  T* Take(uint64_t n) {
    const uint64_t at = used_;
    used_ += Room(n * sizeof(T));
    Check(used_ <= size_, "scratch: an op needs more than its device has");
    return reinterpret_cast<T*>(data_ + at);
  }
  std::byte* rest() const { return data_ + used_; }
  uint64_t left() const { return size_ - used_; }

  // What Take uses up for `bytes`.
  static uint64_t Room(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  std::byte* data_;
  uint64_t size_;
  uint64_t used_ = 0;
};

}  // namespace tandem
