#include "engine/base/check.h"

#include <unistd.h>

#include <cstdlib>
#include <string>

namespace tandem {

void Check(bool condition, std::string_view what, std::source_location where) {
  if (condition) [[likely]] {
    return;
  }
  std::string text = std::string(where.file_name()) + ":" + std::to_string(where.line()) + ": " +
                     where.function_name() + ": " + std::string(what) + "\n";
  // The process is about to die: a raw write needs no stream and takes no lock.
  [[maybe_unused]] ssize_t written = write(STDERR_FILENO, text.data(), text.size());
  std::abort();
}

}  // namespace tandem
