// Where the engine's messages go. Nothing under engine/ or kernels/ prints: whoever makes an object
// that has something to say hands it a LogSink; tools/ provides the one that writes to stderr.
// Implementations must be safe to call from any thread.
#pragma once

#include <string_view>

namespace tandem {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

class LogSink {
 public:
  virtual ~LogSink() = default;
  virtual void Write(LogLevel level, std::string_view message) = 0;
};

// A sink that drops everything; the default where none is given.
LogSink& NullLog();

}  // namespace tandem
