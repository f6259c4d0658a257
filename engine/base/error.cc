#include "engine/base/error.h"

namespace tandem {

const char* ToString(ErrorCode code) {
  switch (code) {
    case ErrorCode::kFailure: return "failure";
    case ErrorCode::kInvalidArgument: return "invalid-argument";
    case ErrorCode::kNotFound: return "not-found";
    case ErrorCode::kModelFile: return "model-file";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kPlan: return "plan";
    case ErrorCode::kPlugin: return "plugin";
    case ErrorCode::kDevice: return "device";
    case ErrorCode::kPortInUse: return "port-in-use";
    case ErrorCode::kIo: return "io";
    case ErrorCode::kOverloaded: return "overloaded";
    case ErrorCode::kCancelled: return "cancelled";
  }
  return "failure";
}

Error::Error(ErrorCode code, const std::string& message, std::source_location where)
    : std::runtime_error(message), code_(code), where_(where) {}

void Fail(ErrorCode code, const std::string& message, std::source_location where) {
  throw Error(code, message, where);
}

}  // namespace tandem
