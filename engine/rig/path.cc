// Names of paths and links, and which paths a rig has.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/suggest.h"
#include "engine/rig/rig.h"

namespace tandem {
namespace {

constexpr std::array kAllPaths{PathKind::kAuto, PathKind::kLocal,      PathKind::kCopy,
                               PathKind::kP2p,  PathKind::kHostStaged, PathKind::kNccl};
constexpr std::array kAllLinks{LinkKind::kIdeal,      LinkKind::kNvlink, LinkKind::kPcieP2p,
                               LinkKind::kHostStaged, LinkKind::kLocal,  LinkKind::kHost};

bool IsCpuRig(const Rig& rig) {
  return rig.gpus.empty() && (rig.is_this_machine || rig.link.kind == LinkKind::kLocal);
}

// The paths of a rig, its own (what kAuto means) first.
std::vector<PathKind> PathsOf(const Rig& rig) {
  if (IsCpuRig(rig)) return {PathKind::kLocal, PathKind::kHostStaged};
  // Without peer access neither the copy engine nor a kernel reaches the other card's memory; NCCL
  // falls back to shared host memory by itself.
  if (rig.link.kind == LinkKind::kHostStaged) return {PathKind::kHostStaged, PathKind::kNccl};
  return {PathKind::kP2p, PathKind::kCopy, PathKind::kHostStaged, PathKind::kNccl};
}

}  // namespace

const char* ToString(PathKind path) {
  switch (path) {
    case PathKind::kAuto:
      return "auto";
    case PathKind::kLocal:
      return "local";
    case PathKind::kCopy:
      return "copy";
    case PathKind::kP2p:
      return "p2p";
    case PathKind::kHostStaged:
      return "host_staged";
    case PathKind::kNccl:
      return "nccl";
  }
  return "auto";
}

std::optional<PathKind> PathKindFromName(std::string_view name) {
  for (PathKind path : kAllPaths) {
    if (name == ToString(path)) return path;
  }
  return std::nullopt;
}

const char* ToString(LinkKind kind) {
  switch (kind) {
    case LinkKind::kIdeal:
      return "ideal";
    case LinkKind::kNvlink:
      return "nvlink";
    case LinkKind::kPcieP2p:
      return "pcie_p2p";
    case LinkKind::kHostStaged:
      return "host_staged";
    case LinkKind::kLocal:
      return "local";
    case LinkKind::kHost:
      return "host";
  }
  return "local";
}

std::optional<LinkKind> LinkKindFromName(std::string_view name) {
  for (LinkKind kind : kAllLinks) {
    if (name == ToString(kind)) return kind;
  }
  return std::nullopt;
}

PathKind Rig::ResolvePath(PathKind requested) const {
  std::vector<PathKind> paths = PathsOf(*this);
  if (requested == PathKind::kAuto) return paths.front();
  if (std::find(paths.begin(), paths.end(), requested) != paths.end()) return requested;
  std::vector<std::string> names;
  for (PathKind path : paths) names.push_back(ToString(path));
  Fail(ErrorCode::kDevice,
       fmt::format("rig {}: path {} does not exist over its link {} ({}); it has: auto, {}", name,
                   ToString(requested), link.name, ToString(link.kind), fmt::join(names, ", ")));
}

bool Rig::SharesAGpu() const {
  std::vector<int> sorted = gpus;
  std::erase(sorted, kNotAGpu);
  std::sort(sorted.begin(), sorted.end());
  return std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end();
}

PathKind Rig::HostPath() const { return IsCpuRig(*this) ? PathKind::kLocal : PathKind::kCopy; }

}  // namespace tandem
