// Hashes of a rig, over a canonical text with one line a thing. Names, descriptions and sources are
// left out: they influence nothing. Rates are written with nine digits, so that a rig that went
// through a file keeps its hash.
#include <fmt/format.h>

#include "engine/base/sha256.h"
#include "engine/rig/rig.h"

namespace tandem {
namespace {

// Of GPUs that are here, what happens to be free is no fact of the rig.
std::string DeviceText(const DeviceSpec& device, bool with_memory) {
  return fmt::format("device {} {:.9g} {:.9g} {:.9g} {:.9g} {}{}{}\n",
                     with_memory ? std::to_string(device.memory.value) : "here",
                     device.memory_bytes_per_s, device.flops, device.memory_efficiency,
                     device.compute_efficiency, device.launch_gap.value,
                     device.replay_gap ? fmt::format(" replay {}", device.replay_gap->value) : "",
                     device.on_host ? " on_host" : "");
}

std::string CurveText(const char* what, const TimeCurve& curve) {
  std::string text = what;
  for (const TimePoint& point : curve.points) {
    text += fmt::format(" {}:{}", point.bytes.value, point.time.value);
  }
  return text + "\n";
}

std::string LinkText(const char* what, const LinkProfile& link) {
  std::string text =
      fmt::format("{} {} {}\n{}{}", what, ToString(link.kind), link.full_duplex ? "full" : "half",
                  CurveText("send", link.send), CurveText("all_reduce", link.all_reduce));
  if (!link.send_replayed.points.empty()) text += CurveText("send_replayed", link.send_replayed);
  if (!link.all_reduce_replayed.points.empty()) {
    text += CurveText("all_reduce_replayed", link.all_reduce_replayed);
  }
  return text;
}

std::string DevicesText(const Rig& rig) {
  std::string text = fmt::format("rig 1 {}\n", rig.is_this_machine ? "here" : "profile");
  for (const DeviceSpec& device : rig.devices) text += DeviceText(device, rig.gpus.empty());
  return text + fmt::format("host {}\n", rig.host_memory.value);
}

}  // namespace

std::string Rig::Fingerprint() const {
  return Sha256Hex(DevicesText(*this) + LinkText("link", link) + LinkText("host_link", host_link));
}

std::string Rig::FingerprintWithoutLinks() const { return Sha256Hex(DevicesText(*this)); }

}  // namespace tandem
