// Which lines of two plans' texts differ: the longest common subsequence of the lines between the
// first and the last difference. See text.h.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "engine/plan/text.h"

namespace tandem {
namespace {

using Lines = std::vector<std::string_view>;

Lines SplitLines(std::string_view text) {
  Lines lines;
  while (!text.empty()) {
    size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

struct Edit {
  char mark;  // ' ' in both, '-' in a alone, '+' in b alone
  std::string_view line;
};

// Past this many cells the table would be too large, and the middle is shown as wholly replaced.
constexpr size_t kMaxCells = size_t{1} << 26;

void AppendMiddle(const Lines& a, const Lines& b, std::vector<Edit>& edits) {
  size_t n = a.size(), m = b.size();
  // step[i * m + j]: 0 take both, 1 drop a[i], 2 take b[j]; lengths are of the suffixes.
  std::vector<uint8_t> step;
  if (n != 0 && m != 0 && n <= kMaxCells / m) {
    step.resize(n * m);
    std::vector<uint32_t> below(m + 1), row(m + 1);
    for (size_t i = n; i-- > 0;) {
      for (size_t j = m; j-- > 0;) {
        if (a[i] == b[j]) {
          row[j] = below[j + 1] + 1;
        } else {
          step[i * m + j] = below[j] >= row[j + 1] ? 1 : 2;
          row[j] = std::max(below[j], row[j + 1]);
        }
      }
      below.swap(row);
    }
  }
  size_t i = 0, j = 0;
  while (i < n || j < m) {
    uint8_t take = i == n ? 2 : j == m || step.empty() ? 1 : step[i * m + j];
    if (take == 0) {
      edits.push_back({' ', a[i++]});
      ++j;
    } else if (take == 1) {
      edits.push_back({'-', a[i++]});
    } else {
      edits.push_back({'+', b[j++]});
    }
  }
}

}  // namespace

std::string DiffPlans(const Plan& a, const Plan& b) {
  std::string text_a = FormatPlan(a), text_b = FormatPlan(b);
  if (text_a == text_b) return "";
  Lines lines_a = SplitLines(text_a), lines_b = SplitLines(text_b);
  size_t shorter = std::min(lines_a.size(), lines_b.size());
  size_t head = 0, tail = 0;
  while (head < shorter && lines_a[head] == lines_b[head]) ++head;
  while (tail < shorter - head &&
         lines_a[lines_a.size() - 1 - tail] == lines_b[lines_b.size() - 1 - tail]) {
    ++tail;
  }
  std::vector<Edit> edits;
  for (size_t i = 0; i < head; ++i) edits.push_back({' ', lines_a[i]});
  AppendMiddle(Lines(lines_a.begin() + head, lines_a.end() - tail),
               Lines(lines_b.begin() + head, lines_b.end() - tail), edits);
  for (size_t i = lines_a.size() - tail; i < lines_a.size(); ++i) {
    edits.push_back({' ', lines_a[i]});
  }

  constexpr size_t kContext = 3;
  std::vector<bool> shown(edits.size());
  for (size_t i = 0; i < edits.size(); ++i) {
    if (edits[i].mark == ' ') continue;
    size_t last = std::min(i + kContext, edits.size() - 1);
    for (size_t k = i - std::min(i, kContext); k <= last; ++k) shown[k] = true;
  }
  std::string out;
  size_t line_a = 1, line_b = 1;
  for (size_t i = 0; i < edits.size(); ++i) {
    if (shown[i] && (i == 0 || !shown[i - 1])) {
      out += fmt::format("@@ line {} | line {} @@\n", line_a, line_b);
    }
    if (shown[i]) out += fmt::format("{}{}\n", edits[i].mark, edits[i].line);
    line_a += edits[i].mark != '+';
    line_b += edits[i].mark != '-';
  }
  return out;
}

}  // namespace tandem
