// The figures of a rig's devices: roofs, launches, and what the back end's products reach. Inside
// the lab's rig probe.
#pragma once

#include <string>
#include <vector>

#include "engine/lab/probe_rounds.h"
#include "engine/lab/product_probe.h"
#include "engine/rig/measurements.h"
#include "engine/run/backend.h"

namespace tandem {

inline constexpr const char* kMemoryRead = "memory read";
inline constexpr const char* kMemoryCopy = "memory copy, read and written";
inline constexpr const char* kLaunchEager = "launch gap, eager";
inline constexpr const char* kLaunchGraph = "launch gap, in a graph";
inline constexpr const char* kDecodeRead = "weights read by products of one row";
inline constexpr const char* kPrefillProducts = "products of a prompt";
std::string NameOf(DeviceMeasure what);  // the first four, and "products of bf16", ...

// Of every device, in the order of the names above. On CPU devices, which share one team of
// threads, the first is measured and stands for all.
std::vector<MeasuredFigure> MeasureDevices(Backend& backend, const ProductSizes& products,
                                           const ProbeRounds& rounds,
                                           const ProbeProgress& progress);

// Null where there is no such figure, or it was not measured.
const MeasuredFigure* FindFigure(const RigMeasurements& measured, int32_t device,
                                 const std::string& what);

}  // namespace tandem
