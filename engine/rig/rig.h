// A rig as data: devices and the directed links between them, with rates that were measured or
// published, each with its source. The catalogue (scenarios/rigs, scenarios/links) holds well-known
// ones; `tandem rig probe` writes one for the machine it runs on.
//
// Plain values, immutable once loaded.
//
//   Catalogue catalogue({"scenarios"});
//   Rig rig = catalogue.LoadRig("2x3090-nvlink");
//   Nanos t = rig.HopTime(DeviceId{0}, DeviceId{1}, Bytes{8192});
//   rig.link = catalogue.LoadLink("ideal");  // the same cards on another link: what sweeps do
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/units.h"

namespace tandem {

// How bytes get from one device to another. kLocal is the CPU's memcpy, which also stands in for a
// rig's peer paths in emulation; kHostStaged takes two hops, through the host's memory.
enum class PathKind : uint8_t { kAuto, kLocal, kCopy, kP2p, kHostStaged, kNccl };
const char* ToString(PathKind path);  // "auto", "local", "copy", "p2p", "host_staged", "nccl"
std::optional<PathKind> PathKindFromName(std::string_view name);

// Rates of one device. All at efficiency 1 unless the efficiencies say otherwise.
struct DeviceSpec {
  std::string name;                 // "RTX 3090"
  Bytes memory;                     // capacity
  double memory_bytes_per_s = 0;    // peak memory bandwidth
  double flops = 0;                 // dense multiply-adds count as two; bf16/f16, f32 accumulate
  double memory_efficiency = 0.8;   // share of the peak a decode product reaches
  double compute_efficiency = 0.6;  // share of the peak a prefill product reaches
  Nanos launch_gap;                 // fixed cost of each op
  // The same within a step that is replayed from a recording; none: no different.
  std::optional<Nanos> replay_gap;
  // The host's own processor, beside cards: its memory is the host's, so the host link joins it to
  // every card, and nothing is in the way to the host.
  bool on_host = false;
  std::string source;  // where the numbers come from
};

// One point of a measured curve.
struct TimePoint {
  Bytes bytes;
  Nanos time;
};

// Time against size for one direction of a link, interpolated linearly between points, by the last
// two points' slope beyond them, and constant below the first.
struct TimeCurve {
  std::vector<TimePoint> points;  // increasing sizes; at least two
  Nanos At(Bytes bytes) const;
};

// kHost joins the host's memory with one device and is never a link between devices.
enum class LinkKind : uint8_t { kIdeal, kNvlink, kPcieP2p, kHostStaged, kLocal, kHost };
// "ideal", "nvlink", "pcie_p2p", "host_staged", "local", "host".
const char* ToString(LinkKind kind);
std::optional<LinkKind> LinkKindFromName(std::string_view name);

// How a movement is asked for: by itself, or within a step that is replayed from a recording.
enum class MoveLaunch : uint8_t { kEager, kReplayed };

// What joins two devices: a curve for one-way sends, and one for all-reduces over two devices where
// it was measured (else an all-reduce is priced as a send in both directions at once). The curve of
// a host-staged link is end to end: both hops. Either may have another for movements within a step
// that is replayed; where that is empty, they take no less than others.
struct LinkProfile {
  std::string name;  // "nvlink3-bridge"
  LinkKind kind = LinkKind::kLocal;
  TimeCurve send;
  TimeCurve all_reduce;           // may be empty
  TimeCurve send_replayed;        // may be empty
  TimeCurve all_reduce_replayed;  // may be empty, and is where all_reduce is
  bool full_duplex = true;        // both directions at once at full rate
  std::string source;

  const TimeCurve& Sends(MoveLaunch launch) const {
    return launch == MoveLaunch::kReplayed && !send_replayed.points.empty() ? send_replayed : send;
  }
  const TimeCurve& AllReduces(MoveLaunch launch) const {
    return launch == MoveLaunch::kReplayed && !all_reduce_replayed.points.empty()
               ? all_reduce_replayed
               : all_reduce;
  }
};

// A message that goes through the host's memory occupies two links: (source, host) from 0 to `hop`
// and (host, destination) from `total - hop` to `total`. The two overlap, as a copy in chunks does:
// `hop` is what the card's own host link needs, held between total/2 (no overlap) and total.
struct StagedTime {
  Nanos hop;
  Nanos total;
};

struct RigMeasurements;  // measurements.h

// A device's part of a GPU that stands for several: multiprocessors of its own, and the bandwidth
// that they reach while the other parts lie idle and while they read too.
struct GpuShare {
  uint32_t sms = 0;  // 0: the GPU is not cut, its devices all use all of it
  uint32_t gpu_sms = 0;
  double alone_bytes_per_s = 0;
  double beside_bytes_per_s = 0;
  bool balanced = false;    // both bandwidths are the same
  std::string how = "off";  // how `sms` was found: "calibrated", "forced", or "off"
};

struct Rig {
  std::string name;
  std::string description;
  std::vector<DeviceSpec> devices;
  LinkProfile link;       // between every two devices, either direction
  LinkProfile host_link;  // between the host's memory and each device, either direction
  Bytes host_memory;
  bool is_this_machine = false;  // its devices are here: nothing is emulated
  // This machine's GPUs by device, in CUDA's numbering, kNotAGpu for its CPU beside them; empty
  // where all devices are the CPU's or only described. One GPU may stand for several devices.
  std::vector<int> gpus;
  static constexpr int kNotAGpu = -1;
  // What `tandem rig probe` measured, of a rig that it wrote; else null.
  std::shared_ptr<const RigMeasurements> measured;
  // By device, where one GPU stands for several; else empty.
  std::vector<GpuShare> shares;

  // Whether a GPU stands for several devices: what is measured then is no rig's own.
  bool SharesAGpu() const;
  uint32_t size() const { return static_cast<uint32_t>(devices.size()); }
  // The host, or its processor.
  bool OnHost(DeviceId id) const {
    const auto d = static_cast<size_t>(id.value);
    return id.IsHost() || (d < devices.size() && devices[d].on_host);
  }
  // Which transport carries a hop of this rig: what the plan asked for, or for kAuto the link's own
  // (host_staged for a host-staged link, else p2p on GPUs and local on CPU devices).
  // Throws Error(kDevice) naming the path when the rig does not have it.
  PathKind ResolvePath(PathKind requested) const;
  // Which transport carries weights and ids between the host and a device: local or copy.
  PathKind HostPath() const;
  // What a hop is booked as: the host's path where either end is on the host, else the path asked
  // for, resolved.
  PathKind HopPath(DeviceId src, DeviceId dst, PathKind requested) const {
    return OnHost(src) || OnHost(dst) ? HostPath() : ResolvePath(requested);
  }
  // Time of `bytes` between two devices (end to end, whatever the link), or between a device and
  // the host. No bytes take no time; so does any distance between two devices on an ideal link.
  Nanos HopTime(DeviceId src, DeviceId dst, Bytes bytes,
                MoveLaunch launch = MoveLaunch::kEager) const;
  // A device-to-device message over the host_staged path. On a host-staged link the total is the
  // link's curve; on others it is one chunk up the host link and the whole down (pipelined).
  StagedTime StagedHopTime(Bytes bytes, MoveLaunch launch = MoveLaunch::kEager) const;
  // Every one of `ranks` devices sends `bytes` to every other at once over `path`. A device has one
  // port: its messages follow one another there.
  Nanos ExchangeTime(uint32_t ranks, Bytes bytes, PathKind path = PathKind::kAuto,
                     MoveLaunch launch = MoveLaunch::kEager) const;
  // Time of an all-reduce of `bytes` (one full activation) over `ranks` devices: for two the
  // measured curve, else one exchange of the whole; for more the curve at 2(D-1)/D of the bytes
  // (what a rank sends, the bus bandwidth rule of nccl-tests), else two exchanges of bytes/D.
  Nanos AllReduceTime(uint32_t ranks, Bytes bytes, PathKind path = PathKind::kAuto,
                      MoveLaunch launch = MoveLaunch::kEager) const;
  // A stable hash of everything that influences time, for records.
  std::string Fingerprint() const;
  // Hash of all but the links: sweeps over links share op times when it is equal.
  std::string FingerprintWithoutLinks() const;
};

// The rig as YAML that LoadRig reads back to the same rig: what `tandem rig probe` writes.
std::string FormatRigYaml(const Rig& rig);

// `n` CPU devices that stand for themselves: this machine's memory shared out, local links.
Rig ThisMachineRig(uint32_t n);

// Finds rigs, links and model shapes by name in catalogue folders, or by path (a name with a '/').
// Rig files refer to devices (rigs/devices/) and host links (links/host/) of their own.
class Catalogue {
 public:
  // Each root holds rigs/, links/ and models/. Earlier roots win.
  explicit Catalogue(std::vector<std::string> roots);

  // Throws Error(kNotFound) with near names, Error(kInvalidArgument) with file and line.
  Rig LoadRig(const std::string& name) const;
  LinkProfile LoadLink(const std::string& name) const;
  // The text after "synthetic:" for a shape of the catalogue ("llama-3.1-8b"), see
  // engine/model/synthetic.h.
  std::string LoadModelShape(const std::string& name) const;
  std::vector<std::string> RigNames() const;
  std::vector<std::string> LinkNames() const;
  std::vector<std::string> ModelNames() const;

 private:
  std::vector<std::string> roots_;
};

}  // namespace tandem
