// Whether the paths of a rig deliver, tried on the devices that are here: in every direction the
// self-test of messages, then sums over all devices with the bits that the host works out. What
// `tandem rig test` shows; a plan's own paths are self-tested anyway before its first step.
//
//   for (const PathVerdict& verdict : TestPaths(*backend, rig, {PathKind::kCopy})) ...
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/rig/rig.h"
#include "engine/run/backend.h"

namespace tandem {

struct PathVerdict {
  PathKind path = PathKind::kAuto;
  std::string what;  // "d0 to d1", "all-reduce over 2", or kPathCanBeHad
  bool passed = false;
  std::string why;  // where it did not
};

inline constexpr const char* kPathCanBeHad = "can be had";

// The paths that a rig may name, whether they can be had here or not.
std::vector<PathKind> PathsToTest(const Rig& rig);

// A path that cannot be had is one verdict, kPathCanBeHad, that says why.
std::vector<PathVerdict> TestPaths(Backend& backend, std::span<const PathKind> paths);

}  // namespace tandem
