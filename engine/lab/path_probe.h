// Times against sizes of every path that a back end can make, through the Transport that the engine
// uses: each direction, both at once, all-reduces of two, and the host's memory with each device.
// Directions and all-reduces, and either way between host and device, once as asked one by one and,
// where a path can be recorded, once as replayed.
// What cannot be had, or delivers wrong values, is listed with the reason.
#pragma once

#include <utility>
#include <vector>

#include "engine/lab/message_clock.h"
#include "engine/lab/probe_rounds.h"
#include "engine/rig/measurements.h"
#include "engine/run/backend.h"

namespace tandem {

// 64 bytes to 64 MiB in powers of two, or (`quick`) of eight, none larger than `largest`.
std::vector<Bytes> ProbeSizes(bool quick, Bytes largest);

// Ordered pairs of devices that are measured: all of up to four devices, else those with the first
// device and those of neighbours.
std::vector<std::pair<size_t, size_t>> ProbePairs(size_t devices);

// Between devices, and between the host and devices; sizes increase.
std::vector<MeasuredPath> ProbePaths(Backend& backend, const Rig& rig, MessageClock& clock,
                                     const std::vector<Bytes>& sizes, const ProbeRounds& rounds,
                                     const ProbeProgress& progress);

// "d0 to d1", "d0 and d1 at once", "all-reduce of d0 and d1"; "host to d0", "d0 to host",
// "host and d0 at once". Of replays, with ", replayed" behind.
std::string OneWayName(size_t src, size_t dst, LaunchMode launch = LaunchMode::kEager);
std::string AllReduceName(size_t a, size_t b, LaunchMode launch = LaunchMode::kEager);
std::string BothWaysName(size_t a, size_t b);
std::string FromHostName(size_t device, LaunchMode launch = LaunchMode::kEager);
std::string ToHostName(size_t device, LaunchMode launch = LaunchMode::kEager);

}  // namespace tandem
