// What a command prints: results to stdout, messages and progress to stderr. Colour and progress
// only where stderr is a terminal, TERM is not "dumb" and NO_COLOR is unset.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/human_bytes.h"
#include "engine/base/log.h"
#include "engine/base/units.h"

namespace tandem {

// Writes warnings and errors to stderr, and infos when verbose.
class ConsoleLog final : public LogSink {
 public:
  explicit ConsoleLog(bool verbose) : verbose_(verbose) {}
  void Write(LogLevel level, std::string_view message) override;

 private:
  bool verbose_;
};

void PrintOut(std::string_view text);        // stdout, as is
void PrintLine(std::string_view text);       // stdout, with a newline
void PrintNote(std::string_view text);       // stderr, with a newline
void PrintJson(const nlohmann::json& json);  // stdout, indented, newline

// "813 ns", "12.3 us", "4.56 ms", "1.23 s".
std::string HumanTime(Nanos time);

// A table in aligned columns; the first row is the header. Numbers are right-aligned.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

// One line on stderr that redraws itself ("[####....] 3/12 tensor_split"), or on a terminal that
// cannot, a line at each tenth. Finishes with a newline.
class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar();
  void Update(size_t done, size_t total, std::string_view what);

 private:
  bool redraw_;
  bool open_ = false;
  size_t last_tenth_ = 0;
};

}  // namespace tandem
