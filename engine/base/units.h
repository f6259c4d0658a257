// Strong types for the quantities and indices that travel together through signatures, so that two
// plain integers in a row cannot be swapped. Each is a struct with one public `value`.
//
//   Bytes weights{98362432};  Nanos step = end - start;  DeviceId d0{0};
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace tandem {

// An amount of memory or traffic, in bytes.
struct Bytes {
  uint64_t value = 0;
  auto operator<=>(const Bytes&) const = default;
  Bytes& operator+=(Bytes other) { value += other.value; return *this; }
  friend Bytes operator+(Bytes a, Bytes b) { return Bytes{a.value + b.value}; }
  friend Bytes operator-(Bytes a, Bytes b) { return Bytes{a.value - b.value}; }
  friend Bytes operator*(Bytes a, uint64_t n) { return Bytes{a.value * n}; }
};

// A duration, or a point on a Clock's axis, in nanoseconds.
struct Nanos {
  int64_t value = 0;
  auto operator<=>(const Nanos&) const = default;
  Nanos& operator+=(Nanos other) { value += other.value; return *this; }
  Nanos& operator-=(Nanos other) { value -= other.value; return *this; }
  friend Nanos operator+(Nanos a, Nanos b) { return Nanos{a.value + b.value}; }
  friend Nanos operator-(Nanos a, Nanos b) { return Nanos{a.value - b.value}; }
  double Seconds() const { return static_cast<double>(value) * 1e-9; }
  double Millis() const { return static_cast<double>(value) * 1e-6; }
};

inline Nanos NanosFromSeconds(double seconds) {
  return Nanos{static_cast<int64_t>(seconds * 1e9 + (seconds < 0 ? -0.5 : 0.5))};
}

// A device of the rig, 0-based; or the host's memory, which holds weights but runs nothing.
struct DeviceId {
  int32_t value = 0;
  auto operator<=>(const DeviceId&) const = default;
  bool IsHost() const { return value < 0; }
};
inline constexpr DeviceId kHost{-1};

// A block of the model's chain: EMBED is 0, then ATTENTION and MLP per layer, HEAD last.
struct BlockId {
  uint32_t value = 0;
  auto operator<=>(const BlockId&) const = default;
};

// A decoder layer, 0-based.
struct LayerIndex {
  uint32_t value = 0;
  auto operator<=>(const LayerIndex&) const = default;
};

// A half-open range [begin, end) of a block's units.
struct UnitRange {
  uint32_t begin = 0;
  uint32_t end = 0;
  auto operator<=>(const UnitRange&) const = default;
  uint32_t size() const { return end - begin; }
  bool empty() const { return begin >= end; }
  bool Contains(UnitRange inner) const { return begin <= inner.begin && inner.end <= end; }
};

}  // namespace tandem

template <>
struct std::hash<tandem::DeviceId> {
  size_t operator()(tandem::DeviceId id) const noexcept { return std::hash<int32_t>()(id.value); }
};
