// Finds catalogue files by name and turns them into rigs, links and model shapes (rig_writer.cc
// writes rigs back).
// The formats are described in scenarios/rigs/README.md; every number of a file is bounded here.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>

#include "engine/base/error.h"
#include "engine/base/suggest.h"
#include "engine/rig/measurements_yaml.h"
#include "engine/rig/rig.h"
#include "engine/rig/yaml_reader.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr double kGib = 1024.0 * 1024.0 * 1024.0;
constexpr int64_t kMaxDevices = 16;
constexpr size_t kMaxCurvePoints = 256;
// The far end of a curve that is given by latency and bandwidth.
constexpr uint64_t kFarBytes = uint64_t{1} << 30;
constexpr const char* kSuffix = ".yaml";

// A double in [low, high], or an error at its line.
double Bounded(const YamlValue& value, double low, double high) {
  double number = value.AsDouble();
  if (number < low || number > high) {
    value.FailHere(fmt::format("got {} (want {} to {})", number, low, high));
  }
  return number;
}

double Bounded(YamlMap& map, const std::string& key, double low, double high) {
  return Bounded(map.Require(key), low, high);
}

int64_t BoundedInt(const YamlValue& value, int64_t low, int64_t high) {
  int64_t number = value.AsInt();
  if (number < low || number > high) {
    value.FailHere(fmt::format("got {} (want {} to {})", number, low, high));
  }
  return number;
}

std::string NonEmpty(YamlMap& map, const std::string& key) {
  YamlValue value = map.Require(key);
  std::string text = value.AsString();
  if (text.empty()) value.FailHere("is empty");
  return text;
}

Nanos FromMicros(double us) { return NanosFromSeconds(us * 1e-6); }

// Names are file names without folder or suffix.
bool IsPlainName(const std::string& name) {
  auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  };
  return !name.empty() && name[0] != '.' && std::all_of(name.begin(), name.end(), fits);
}

// All names in `folder` of every root, sorted, each once.
std::vector<std::string> NamesIn(const std::vector<std::string>& roots, const char* folder) {
  std::set<std::string> names;
  for (const std::string& root : roots) {
    std::error_code error;
    fs::directory_iterator entries(fs::path(root) / folder, error);
    if (error) continue;  // a root need not hold every folder
    for (const fs::directory_entry& entry : entries) {
      std::string stem = entry.path().stem().string();
      if (entry.path().extension() == kSuffix && IsPlainName(stem)) names.insert(stem);
    }
  }
  return {names.begin(), names.end()};
}

// Of a name that is nobody's typing error: those like it, or all where they are few.
std::string NamesBeside(const std::string& name, const std::vector<std::string>& names) {
  constexpr size_t kFew = 6;
  if (names.size() <= kFew) return fmt::format("; known: {}", fmt::join(names, ", "));
  const std::vector<std::string> like = NamesLike(name, names, kFew);
  const std::string all =
      fmt::format("tandem rig list and tandem models list have all {}", names.size());
  return like.empty() ? "; " + all : fmt::format("; like it: {} ({})", fmt::join(like, ", "), all);
}

// The path of a thing by name. `what` and `folder` are for the search and its messages; a name with
// a '/' or a suffix of YAML's is a path, relative to `base`, and so is that of a file that is there
// where the catalogue has none.
std::string FindFile(const std::vector<std::string>& roots, const char* folder, const char* what,
                     const std::string& name, const fs::path& base) {
  const fs::path as_path = base / name;
  std::error_code ignored;
  const bool is_path =
      name.find('/') != std::string::npos || name.ends_with(kSuffix) || name.ends_with(".yml");
  if (is_path) {
    if (fs::exists(as_path, ignored)) return as_path.string();
    Fail(ErrorCode::kNotFound, fmt::format("{} file {}: no such file", what, as_path.string()));
  }
  if (IsPlainName(name)) {
    for (const std::string& root : roots) {
      fs::path path = fs::path(root) / folder / (name + kSuffix);
      std::error_code error;
      if (fs::exists(path, error)) return path.string();
    }
  }
  if (!name.empty() && fs::is_regular_file(as_path, ignored)) return as_path.string();
  std::vector<std::string> names = NamesIn(roots, folder);
  std::string hint = DidYouMean(name, names);
  if (hint.empty()) hint = NamesBeside(name, names);
  Fail(ErrorCode::kNotFound,
       fmt::format("{} '{}' is not in the catalogue{}; a name with a '/' or that "
                   "ends in .yaml is taken as a path",
                   what, name, hint));
}

TimeCurve ReadCurve(const YamlValue& value) {
  TimeCurve curve;
  if (value.IsMap()) {
    YamlMap map = value.AsMap();
    double latency_us = Bounded(map, "latency_us", 0, 1e6);
    double bytes_per_s = Bounded(map, "gb_per_s", 1e-3, 1e5) * 1e9;
    map.Finish();
    Nanos far = NanosFromSeconds(latency_us * 1e-6 + static_cast<double>(kFarBytes) / bytes_per_s);
    curve.points = {{Bytes{0}, FromMicros(latency_us)}, {Bytes{kFarBytes}, far}};
    return curve;
  }
  for (const YamlValue& row : value.AsSequence()) {
    std::vector<YamlValue> pair = row.AsSequence();
    if (pair.size() != 2) row.FailHere("want a point as [bytes, microseconds]");
    TimePoint point{Bytes{static_cast<uint64_t>(BoundedInt(pair[0], 0, int64_t{1} << 40))},
                    FromMicros(Bounded(pair[1], 0, 1e9))};
    if (!curve.points.empty() && point.bytes <= curve.points.back().bytes) {
      row.FailHere("sizes must increase from point to point");
    }
    curve.points.push_back(point);
  }
  size_t n = curve.points.size();
  if (n < 2 || n > kMaxCurvePoints) {
    value.FailHere(fmt::format("got {} points (want 2 to {})", n, kMaxCurvePoints));
  }
  // The slope between the last two is used for all larger sizes.
  if (curve.points[n - 1].time < curve.points[n - 2].time) {
    value.FailHere("the last point takes less time than the one before it");
  }
  return curve;
}

// A link between devices, or (`for_host`) between the host and one of them.
LinkProfile ReadLink(const YamlValue& value, bool for_host) {
  YamlMap map = value.AsMap();
  LinkProfile link;
  link.name = NonEmpty(map, "name");
  YamlValue kind = map.Require("kind");
  std::optional<LinkKind> known = LinkKindFromName(kind.AsString());
  if (!known || (*known == LinkKind::kHost && !for_host)) {
    kind.FailHere(fmt::format("got '{}' (want nvlink, pcie_p2p, host_staged, local or ideal)",
                              kind.AsString()));
  }
  bool joins_host =
      *known == LinkKind::kHost || *known == LinkKind::kLocal || *known == LinkKind::kIdeal;
  if (for_host && !joins_host) {
    kind.FailHere(
        fmt::format("got '{}' for a host link (want host, local or ideal)", kind.AsString()));
  }
  link.kind = *known;
  link.source = NonEmpty(map, "source");
  link.full_duplex = map.Bool("full_duplex", true);
  if (link.kind == LinkKind::kIdeal) {
    link.send.points = {{Bytes{0}, Nanos{0}}, {Bytes{kFarBytes}, Nanos{0}}};
  } else {
    link.send = ReadCurve(map.Require("send"));
    if (std::optional<YamlValue> curve = map.Get("all_reduce")) link.all_reduce = ReadCurve(*curve);
    if (std::optional<YamlValue> curve = map.Get("send_replayed")) {
      link.send_replayed = ReadCurve(*curve);
    }
    if (std::optional<YamlValue> curve = map.Get("all_reduce_replayed")) {
      if (link.all_reduce.points.empty()) {
        curve->FailHere(
            "stands without all_reduce, so all-reduces that are not replayed would be priced as "
            "sends (want both, or all_reduce alone for both)");
      }
      link.all_reduce_replayed = ReadCurve(*curve);
    }
  }
  map.Finish();
  return link;
}

// A link named in a rig file, or written out there.
LinkProfile ReadLinkReference(const std::vector<std::string>& roots, const YamlValue& value,
                              const fs::path& base, bool for_host) {
  if (!value.IsScalar()) return ReadLink(value, for_host);
  try {
    std::string path = FindFile(roots, for_host ? "links/host" : "links",
                                for_host ? "host link" : "link", value.AsString(), base);
    return ReadLink(YamlDocument::Load(path).root(), for_host);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kNotFound) throw;
    Fail(ErrorCode::kNotFound, fmt::format("{}: {}", value.Where(), error.what()));
  }
}

// Reads what is there over what `device` already holds; a key without a value there is required.
void ReadDevice(YamlMap& map, DeviceSpec& device, bool complete) {
  auto read = [&](const char* key, double low, double high, double scale, double& out) {
    std::optional<YamlValue> value = map.Get(key);
    if (value) out = Bounded(*value, low, high) * scale;
    if (!value && !complete && out == 0) map.Require(key);
  };
  if (!complete || map.Has("name")) device.name = NonEmpty(map, "name");
  if (!complete || map.Has("source")) device.source = NonEmpty(map, "source");
  double memory = static_cast<double>(device.memory.value);
  read("memory_gib", 1e-3, 1e5, kGib, memory);
  device.memory = Bytes{static_cast<uint64_t>(memory + 0.5)};
  read("memory_gb_per_s", 1e-3, 1e6, 1e9, device.memory_bytes_per_s);
  read("tflops", 1e-6, 1e6, 1e12, device.flops);
  read("memory_efficiency", 0.01, 1, 1, device.memory_efficiency);
  read("compute_efficiency", 0.01, 1, 1, device.compute_efficiency);
  if (std::optional<YamlValue> gap = map.Get("launch_gap_us")) {
    device.launch_gap = FromMicros(Bounded(*gap, 0, 1e5));
  }
  if (std::optional<YamlValue> gap = map.Get("replay_gap_us")) {
    device.replay_gap = FromMicros(Bounded(*gap, 0, 1e5));
  }
  device.on_host = map.Bool("on_host", device.on_host);
}

DeviceSpec LoadDevice(const std::vector<std::string>& roots, const YamlValue& name,
                      const fs::path& base) {
  try {
    std::string path = FindFile(roots, "rigs/devices", "device", name.AsString(), base);
    YamlMap map = YamlDocument::Load(path).root().AsMap();
    DeviceSpec device;
    ReadDevice(map, device, false);
    map.Finish();
    return device;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kNotFound) throw;
    Fail(ErrorCode::kNotFound, fmt::format("{}: {}", name.Where(), error.what()));
  }
}

std::vector<DeviceSpec> ReadDevices(const std::vector<std::string>& roots, const YamlValue& value,
                                    const fs::path& base) {
  std::vector<DeviceSpec> devices;
  for (const YamlValue& entry : value.AsSequence()) {
    YamlMap map = entry.AsMap();
    DeviceSpec device;
    std::optional<YamlValue> reference = map.Get("device");
    if (reference) device = LoadDevice(roots, *reference, base);
    ReadDevice(map, device, reference.has_value());
    std::optional<YamlValue> count_value = map.Get("count");
    int64_t count = count_value ? BoundedInt(*count_value, 1, kMaxDevices) : 1;
    map.Finish();
    devices.insert(devices.end(), static_cast<size_t>(count), device);
  }
  if (devices.empty() || devices.size() > kMaxDevices) {
    value.FailHere(fmt::format("got {} devices (want 1 to {})", devices.size(), kMaxDevices));
  }
  return devices;
}

}  // namespace

Catalogue::Catalogue(std::vector<std::string> roots) : roots_(std::move(roots)) {}

Rig Catalogue::LoadRig(const std::string& name) const {
  std::string path = FindFile(roots_, "rigs", "rig", name, "");
  fs::path base = fs::path(path).parent_path();
  YamlMap map = YamlDocument::Load(path).root().AsMap();
  Rig rig;
  rig.name = NonEmpty(map, "name");
  rig.description = NonEmpty(map, "description");
  rig.devices = ReadDevices(roots_, map.Require("devices"), base);
  rig.link = ReadLinkReference(roots_, map.Require("link"), base, false);
  rig.host_link = ReadLinkReference(roots_, map.Require("host_link"), base, true);
  rig.host_memory =
      Bytes{static_cast<uint64_t>(Bounded(map, "host_memory_gib", 1e-3, 1e6) * kGib + 0.5)};
  if (std::optional<YamlValue> measured = map.Get("measured")) {
    rig.measured = std::make_shared<const RigMeasurements>(ReadMeasurements(*measured));
  }
  map.Finish();
  return rig;
}

LinkProfile Catalogue::LoadLink(const std::string& name) const {
  return ReadLink(YamlDocument::Load(FindFile(roots_, "links", "link", name, "")).root(), false);
}

std::string Catalogue::LoadModelShape(const std::string& name) const {
  std::string path = FindFile(roots_, "models", "model shape", name, "");
  YamlMap map = YamlDocument::Load(path).root().AsMap();
  NonEmpty(map, "name");
  NonEmpty(map, "source");
  map.String("description", "");
  // The file's keys in the order of the text form, with the text form's own.
  constexpr std::pair<const char*, const char*> kCounts[] = {
      {"hidden", "h"},    {"layers", "l"}, {"heads", "heads"}, {"kv_heads", "kv"},
      {"head_dim", "hd"}, {"ffn", "ffn"},  {"vocab", "vocab"}, {"context", "ctx"}};
  std::string text;
  for (const auto& [key, short_key] : kCounts) {
    text += fmt::format("{}={},", short_key, BoundedInt(map.Require(key), 1, int64_t{1} << 24));
  }
  text += fmt::format("type={},", NonEmpty(map, "type"));
  text += fmt::format("embed={},", NonEmpty(map, "embedding_type"));
  text += fmt::format("tied={},", map.Bool("tied", false) ? 1 : 0);
  text += fmt::format("seed={}", map.Int("seed", 1));
  const std::string architecture = map.String("architecture", "llama");
  if (architecture != "llama") text += fmt::format(",arch={}", architecture);
  map.Finish();
  return text;
}

std::vector<std::string> Catalogue::RigNames() const { return NamesIn(roots_, "rigs"); }
std::vector<std::string> Catalogue::LinkNames() const { return NamesIn(roots_, "links"); }
std::vector<std::string> Catalogue::ModelNames() const { return NamesIn(roots_, "models"); }

}  // namespace tandem
