// What `tandem rig probe` measured on a machine, as its rig file keeps it: the figures behind the
// rig's rates and curves, and what no rate needs (slots, clocks, counters). Of what is priced, a
// library's products alone are read here (engine/lab/switch_prices.h).
//
// Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/rig/rig.h"

namespace tandem {

// A number measured over and over.
struct Spread {
  double median = 0;
  double low = 0, high = 0;  // quartiles: half of the runs lie between
  uint32_t runs = 0;
  bool operator==(const Spread&) const = default;
};

// A rate or a time of one device.
struct MeasuredFigure {
  int32_t device = 0;
  std::string what;    // "memory read"
  std::string unit;    // "GB/s"
  Spread value;        // in the unit
  std::string absent;  // not empty: why it was not measured
  bool operator==(const MeasuredFigure&) const = default;
};

// What the machine says of itself.
struct MachineFact {
  std::string of;    // "machine", "d0", "d0 to d1"
  std::string what;  // "PCIe width under load"
  std::string value;
  std::string absent;  // not empty: why it is not known
  bool operator==(const MachineFact&) const = default;
};

struct MeasuredPoint {
  Bytes bytes;
  Spread micros;
  bool operator==(const MeasuredPoint&) const = default;
};

// Time against size of one kind of movement over one path.
struct MeasuredPath {
  PathKind path = PathKind::kLocal;
  std::string what;  // "d0 to d1", "d0 and d1 at once", "host to d0", "all-reduce of d0 and d1"
  std::vector<MeasuredPoint> points;  // increasing sizes; none where refused
  std::string refused;                // not empty: why the path could not be had, or is not trusted
  bool operator==(const MeasuredPath&) const = default;
};

// Bytes that a transport booked against those that a GPU's counter counted meanwhile.
enum class CounterVerdict : uint8_t { kMeasured, kNotAvailable, kMismatch };
const char* ToString(CounterVerdict verdict);  // "measured", "not_available", "mismatch"

struct CounterCheck {
  PathKind path = PathKind::kLocal;
  std::string what;     // "d0 to d1"
  std::string counter;  // "nvlink_sent of d0"
  Bytes booked;
  Bytes counted;
  double tolerance = 0;  // share of the booked bytes
  CounterVerdict verdict = CounterVerdict::kNotAvailable;
  std::string why;  // where it is not available
  bool operator==(const CounterCheck&) const = default;
};

struct RigMeasurements {
  std::string date;     // "2026-11-25T12:00:00Z"
  std::string version;  // of tandem
  std::string devices;  // "cuda:0,cuda:1", as --devices takes it
  std::vector<MachineFact> facts;
  std::vector<MeasuredFigure> figures;
  std::vector<MeasuredPath> paths;
  std::vector<CounterCheck> counters;
  bool operator==(const RigMeasurements&) const = default;
};

}  // namespace tandem
