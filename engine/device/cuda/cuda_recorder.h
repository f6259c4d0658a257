// Stream capture: what the queues of several GPUs are asked for, kept as one CUDA graph.
//
// The first device's compute stream begins the capture, all other streams fork off it and join it
// again at the end, so a graph spans the devices; a replay is launched in that first stream, behind
// all of them and before all of them. Events of a device that are marked within become two things:
// an order between nodes, and, where they tell time, a node that records the event at each replay.
//
// State: compiled, and run on emulated GPUs; never run on real ones.
#pragma once

#include <memory>
#include <span>

#include "engine/device/device.h"
#include "engine/device/recorder.h"

namespace tandem {

// `devices` are MakeCudaDevice's, and outlive the result.
std::unique_ptr<QueueRecorder> MakeCudaRecorder(std::span<const std::unique_ptr<Device>> devices);

}  // namespace tandem
