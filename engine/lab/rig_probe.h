// `tandem rig probe`: measures the machine it runs on, and describes it as a rig. What runs is the
// back end's own: its roofs (DeviceProbe), its products (Ops), its paths (Transport). Everything is
// repeated in turn, after a warm-up; a figure is a median with its quartiles.
//
// One thread; nothing else runs on the devices. The GPU side has never run on a GPU.
//
//   Rig rig = ProbeRig(*backend, ThisMachineRig(2), {.date = ..., .version = ...});
//   std::ofstream(path) << FormatRigYaml(rig);
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/device/gpu_monitor.h"
#include "engine/device/inventory.h"
#include "engine/lab/probe_rounds.h"
#include "engine/lab/product_probe.h"
#include "engine/lab/traffic_check.h"
#include "engine/rig/measurements.h"
#include "engine/run/backend.h"

namespace tandem {

struct RigProbeOptions {
  bool quick = false;             // fewer sizes and rounds
  std::string name;               // the rig's
  std::string date;               // "2026-11-25T12:00:00Z"
  std::string version;            // of tandem
  std::string devices;            // "cuda:0,cuda:1", as --devices takes it
  GpuInventory found;             // of GPUs
  GpuMonitor* monitor = nullptr;  // of GPUs; null on CPU devices
  // Waits until counters of bytes have caught up (traffic_check.h).
  std::function<void()> settle;
  ProbeProgress progress;
  // Sizes that tests make small.
  std::optional<ProbeRounds> rounds;
  std::optional<ProductSizes> products;
  Bytes largest_message{uint64_t{64} << 20};
  Bytes least_checked = kLeastChecked;
};

// `rig` is the machine's, as far as it is known without measuring; the result is `rig` with what
// was measured in its place, and all figures in `measured`. What could not be measured keeps the
// nominal value, and its source says why. Throws Error(kDevice) where a device is lost on the way.
Rig ProbeRig(Backend& backend, const Rig& rig, const RigProbeOptions& options);

// The curve that a rig is priced by: no size takes longer than a larger one.
TimeCurve CurveOf(const std::vector<const MeasuredPath*>& paths);

}  // namespace tandem
