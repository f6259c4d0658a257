#include "engine/base/log.h"

namespace tandem {
namespace {

class DroppingLog final : public LogSink {
 public:
  void Write(LogLevel, std::string_view) override {}
};

}  // namespace

LogSink& NullLog() {
  static DroppingLog log;
  return log;
}

}  // namespace tandem
