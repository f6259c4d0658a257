// Where each device's step went: turns the intervals of a laid schedule into parts that sum to the
// step, for schedule.cc.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/units.h"

namespace tandem {

// A half-open stretch of a step.
struct Interval {
  Nanos begin;
  Nanos end;
  bool empty() const { return begin >= end; }
};

// What happened on one device.
struct DeviceIntervals {
  std::vector<Interval> compute;
  std::vector<Interval> launch;
  std::vector<Interval> wire;  // movements that touch the device
  std::vector<Interval> wait;  // operands still being made elsewhere
};

struct DeviceParts {
  Nanos compute;
  Nanos launch;
  Nanos exposed_comm;
  Nanos wait;
  Nanos idle;
  std::vector<Interval> exposed;  // the stretches of exposed_comm, in order, disjoint
};

// At each instant of [0, length) the first of compute, launch, wire, wait that holds, else idle.
DeviceParts Attribute(const DeviceIntervals& intervals, Nanos length);

// Time covered by at least one of the intervals. Sorts them.
Nanos UnionLength(std::vector<Interval>& intervals);

}  // namespace tandem
