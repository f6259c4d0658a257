// A rig of made-up cards for tests of emulation: round numbers, so that a figure can be checked by
// hand.
#pragma once

#include <utility>

#include "engine/rig/rig.h"

namespace tandem::testing {

inline TimeCurve Line(int64_t alpha_ns, double bytes_per_ns) {
  TimeCurve curve;
  for (uint64_t bytes : {uint64_t{1}, uint64_t{1} << 20, uint64_t{1} << 24}) {
    const auto wire = static_cast<int64_t>(static_cast<double>(bytes) / bytes_per_ns);
    curve.points.push_back({Bytes{bytes}, Nanos{alpha_ns + wire}});
  }
  return curve;
}

inline Rig EmulatedRig(uint32_t devices, LinkKind kind = LinkKind::kNvlink) {
  Rig rig;
  rig.name = "test-cards";
  for (uint32_t d = 0; d < devices; ++d) {
    DeviceSpec device;
    device.name = "card";
    device.memory = Bytes{uint64_t{1} << 30};
    device.memory_bytes_per_s = 1e12;
    device.flops = 1e14;
    device.launch_gap = Nanos{1000};
    rig.devices.push_back(device);
  }
  rig.link.name = "test-link";
  rig.link.kind = kind;
  rig.link.send = Line(4000, 50);
  rig.host_link.name = "test-host-link";
  rig.host_link.kind = LinkKind::kPcieP2p;
  rig.host_link.send = Line(8000, 20);
  rig.host_memory = Bytes{uint64_t{8} << 30};
  return rig;
}

}  // namespace tandem::testing
