// The one exception type of the project, for when the world failed: a file, YAML, a plugin, a
// device, a socket. A bug is not an Error; it is a Check (base/check.h), which aborts.
// Messages say the component, what was got, what was wanted, and what to do. Errors are caught at
// the edges alone: main, the HTTP handler, the scheduler's step, a worker thread's top.
//
//   Fail(ErrorCode::kModelFile, fmt::format("gguf: {}: version {} (want 2 or 3)", path, v));
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>

namespace tandem {

// What kind of thing failed. The command line maps each to an exit code (tools/tandem/exit_code.h)
// and the server to an HTTP status.
enum class ErrorCode {
  kFailure,          // anything without a kind of its own
  kInvalidArgument,  // a value the caller gave is wrong; also bad YAML and bad JSON
  kNotFound,         // a file, model, plugin or scenario by that name does not exist
  kModelFile,        // a model file is missing, truncated, foreign or inconsistent
  kUnsupported,      // well-formed, but tandem does not do it
  kPlan,             // a plan was refused, or does not fit
  kPlugin,           // a plugin broke its contract
  kDevice,           // a device or link failed
  kPortInUse,        // the server's address is taken
  kIo,               // reading or writing a file failed
  kOverloaded,       // a queue is full: try again later
  kCancelled,        // the client left, or the process is stopping
};

// "model-file" for kModelFile, and so on: stable spellings for JSON.
const char* ToString(ErrorCode code);

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message,
        std::source_location where = std::source_location::current());

  ErrorCode code() const { return code_; }
  const std::source_location& where() const { return where_; }

 private:
  ErrorCode code_;
  std::source_location where_;
};

// Throws Error. The location is the caller's.
[[noreturn]] void Fail(ErrorCode code, const std::string& message,
                       std::source_location where = std::source_location::current());

}  // namespace tandem
