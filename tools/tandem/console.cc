#include "tools/tandem/console.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>

namespace tandem {
namespace {

bool IsFancyTerminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDERR_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr && term != nullptr &&
         std::string_view(term) != "dumb";
}

const char* Prefix(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return "error: ";
    case LogLevel::kWarning:
      return "warning: ";
    default:
      return "";
  }
}

// Columns a UTF-8 text takes, counting a code point as one.
size_t Width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

bool LooksNumeric(const std::string& text) {
  return !text.empty() && (std::isdigit(static_cast<unsigned char>(text[0])) != 0 || text == "-" ||
                           text[0] == '+' || text[0] == '.');
}

}  // namespace

void ConsoleLog::Write(LogLevel level, std::string_view message) {
  if (level == LogLevel::kDebug || (level == LogLevel::kInfo && !verbose_)) {
    return;
  }
  fmt::print(stderr, "{}{}\n", Prefix(level), message);
}

void PrintOut(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void PrintLine(std::string_view text) {
  fmt::print("{}\n", text);
  std::fflush(stdout);
}

void PrintNote(std::string_view text) { fmt::print(stderr, "{}\n", text); }

void PrintJson(const nlohmann::json& json) {
  PrintLine(json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

std::string HumanTime(Nanos time) {
  auto ns = static_cast<double>(time.value);
  if (ns < 1e3) return fmt::format("{} ns", time.value);
  if (ns < 1e6) return fmt::format("{:.3g} us", ns / 1e3);
  if (ns < 1e9) return fmt::format("{:.4g} ms", ns / 1e6);
  return fmt::format("{:.4g} s", ns / 1e9);
}

std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], Width(row[c]));
  }
  std::string text;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (size_t c = 0; c < rows[r].size(); ++c) {
      const std::string& cell = rows[r][c];
      // A header follows the alignment of the value under it.
      const std::string& probe =
          r == 0 && rows.size() > 1 && c < rows[1].size() ? rows[1][c] : cell;
      std::string pad(widths[c] - Width(cell), ' ');
      line += LooksNumeric(probe) ? pad + cell : cell + pad;
      line += "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

ProgressBar::ProgressBar() : redraw_(IsFancyTerminal()) {}

ProgressBar::~ProgressBar() {
  if (open_) fmt::print(stderr, "\n");
}

void ProgressBar::Update(size_t done, size_t total, std::string_view what) {
  if (total == 0) return;
  if (!redraw_) {
    size_t tenth = done * 10 / total;
    if (tenth != last_tenth_ || done == total) {
      fmt::print(stderr, "{}/{} {}\n", done, total, what);
      last_tenth_ = tenth;
    }
    return;
  }
  constexpr size_t kWidth = 30;
  size_t filled = done * kWidth / total;
  fmt::print(stderr, "\r\033[K[{}{}] {}/{} {}", std::string(filled, '#'),
             std::string(kWidth - filled, '.'), done, total, what);
  std::fflush(stderr);
  open_ = true;
}

}  // namespace tandem
