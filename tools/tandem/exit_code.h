// The exit codes of the tandem program: documented in --help, tested, stable for scripts.
#pragma once

#include <atomic>

#include "engine/base/error.h"

namespace tandem {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;   // wrong flags, values, YAML or JSON
inline constexpr int kExitModel = 3;   // a model file is missing, foreign, or not supported
inline constexpr int kExitPlan = 4;    // a plan was refused, or does not fit
inline constexpr int kExitPlugin = 5;  // a plugin is missing or broke its contract
inline constexpr int kExitDevice = 6;  // a device or link failed
inline constexpr int kExitPortInUse = 7;
inline constexpr int kExitIncomplete = 8;  // a run stopped early and can be resumed
inline constexpr int kExitInterrupted = 130;

// Whether an engine of this process has told that a device is lost: the exit code says so, whatever
// failed because of it.
inline std::atomic<bool>& DeviceLost() {
  static std::atomic<bool> lost{false};
  return lost;
}

inline int ExitCodeFor(ErrorCode code) {
  if (DeviceLost()) return kExitDevice;
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return kExitUsage;
    case ErrorCode::kModelFile:
      return kExitModel;
    case ErrorCode::kUnsupported:
      return kExitModel;
    case ErrorCode::kPlan:
      return kExitPlan;
    case ErrorCode::kPlugin:
      return kExitPlugin;
    case ErrorCode::kDevice:
      return kExitDevice;
    case ErrorCode::kPortInUse:
      return kExitPortInUse;
    case ErrorCode::kCancelled:
      return kExitInterrupted;
    case ErrorCode::kFailure:
    case ErrorCode::kNotFound:
    case ErrorCode::kIo:
    case ErrorCode::kOverloaded:
      return kExitFailure;
  }
  return kExitFailure;
}

}  // namespace tandem
