// Stream capture: what the queues of several GPUs are asked for, kept as one CUDA graph.
//
// The first device's compute stream begins the capture, all other streams fork off it and join it
// again at the end, so a graph spans the devices; a replay is launched in that first stream, behind
// all of them and before all of them. Events of a device that are marked within become two things:
// an order between nodes, and, where they tell time, a node that records the event at each replay.
//
// CUDA promises no two branches of a graph to run at once. Kernels of two devices that wait for one
// another (link/cuda/p2p_kernels.cu) rely on it all the same, as streams do: sure where each device
// is a GPU, to be seen where one GPU stands for both. Their bounded wait fails the step if it is
// not so.
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
