// A rig as the YAML that Catalogue::LoadRig reads.
#include <fmt/format.h>

#include "engine/rig/measurements_yaml.h"
#include "engine/rig/rig.h"

namespace tandem {
namespace {

constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

std::string CurveYaml(const char* key, const TimeCurve& curve) {
  std::string out = fmt::format("  {}:\n", key);
  for (const TimePoint& point : curve.points) {
    out += fmt::format("    - [{}, {}]\n", point.bytes.value,
                       static_cast<double>(point.time.value) / 1e3);
  }
  return out;
}

std::string LinkYaml(const char* key, const LinkProfile& link) {
  std::string out = fmt::format("{}:\n  name: {}\n  kind: {}\n  source: {}\n  full_duplex: {}\n",
                                key, QuotedYaml(link.name), ToString(link.kind),
                                QuotedYaml(link.source), link.full_duplex);
  if (link.kind == LinkKind::kIdeal) return out;
  out += CurveYaml("send", link.send);
  if (!link.all_reduce.points.empty()) out += CurveYaml("all_reduce", link.all_reduce);
  if (!link.send_replayed.points.empty()) out += CurveYaml("send_replayed", link.send_replayed);
  if (!link.all_reduce_replayed.points.empty()) {
    out += CurveYaml("all_reduce_replayed", link.all_reduce_replayed);
  }
  return out;
}

}  // namespace

std::string FormatRigYaml(const Rig& rig) {
  std::string out = fmt::format("name: {}\ndescription: {}\nhost_memory_gib: {}\ndevices:\n",
                                QuotedYaml(rig.name), QuotedYaml(rig.description),
                                static_cast<double>(rig.host_memory.value) / kGib);
  for (const DeviceSpec& device : rig.devices) {
    out += fmt::format(
        "  - name: {}\n    memory_gib: {}\n    memory_gb_per_s: {}\n    tflops: {}\n"
        "    memory_efficiency: {}\n    compute_efficiency: {}\n    launch_gap_us: {}\n{}{}"
        "    source: {}\n",
        QuotedYaml(device.name), static_cast<double>(device.memory.value) / kGib,
        device.memory_bytes_per_s / 1e9, device.flops / 1e12, device.memory_efficiency,
        device.compute_efficiency, static_cast<double>(device.launch_gap.value) / 1e3,
        device.replay_gap ? fmt::format("    replay_gap_us: {}\n",
                                        static_cast<double>(device.replay_gap->value) / 1e3)
                          : "",
        device.on_host ? "    on_host: true\n" : "", QuotedYaml(device.source));
  }
  out += LinkYaml("link", rig.link) + LinkYaml("host_link", rig.host_link);
  return rig.measured == nullptr ? out : out + "measured:\n" + FormatMeasurements(*rig.measured);
}

}  // namespace tandem
