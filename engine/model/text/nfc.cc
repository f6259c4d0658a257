#include "engine/model/text/nfc.h"

#include <algorithm>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/model/text/nfc_table.h"
#include "engine/model/text/utf8.h"

namespace tandem::text {
namespace {

// The Unicode standard, section 3.12: syllables are arithmetic on their parts.
constexpr uint32_t kSyllables = 0xAC00;
constexpr uint32_t kLeads = 0x1100, kVowels = 0x1161, kTrails = 0x11A7;  // no trail has number 0
constexpr uint32_t kLeadCount = 19, kVowelCount = 21, kTrailCount = 28;
constexpr uint32_t kSyllableCount = kLeadCount * kVowelCount * kTrailCount;

constexpr uint32_t kFirstComposite = 0xC0;  // what is below it stays as it is

struct Symbol {
  uint32_t code_point;
  uint8_t combining;   // its canonical combining class; 0: it starts a letter
  uint32_t place = 0;  // in its run of marks
};

class Tables {
 public:
  Tables() {
    const auto composites = nfc::Composites();
    for (size_t i = 0; i < composites.size(); i += 3) {
      parts_[composites[i]] = {composites[i + 1], composites[i + 2]};
      composed_[Key(composites[i + 1], composites[i + 2])] = composites[i];
    }
    const auto pairs = nfc::Pairs();
    for (size_t i = 0; i < pairs.size(); i += 3) parts_[pairs[i]] = {pairs[i + 1], pairs[i + 2]};
    const auto singletons = nfc::Singletons();
    for (size_t i = 0; i < singletons.size(); i += 2)
      parts_[singletons[i]] = {singletons[i + 1], 0};
    const auto ranges = nfc::CombiningRanges();
    for (size_t i = 0; i < ranges.size(); i += 3) {
      for (uint32_t c = ranges[i]; c <= ranges[i + 1]; ++c) {
        combining_[c] = static_cast<uint8_t>(ranges[i + 2]);
      }
    }
  }

  uint8_t Combining(uint32_t c) const {
    const auto found = combining_.find(c);
    return found == combining_.end() ? 0 : found->second;
  }

  // The full decomposition; no letter of Unicode takes more than a few steps.
  void Decompose(uint32_t c, std::vector<Symbol>& out) const {
    if (c - kSyllables < kSyllableCount) {
      const uint32_t index = c - kSyllables;
      out.push_back({kLeads + index / (kVowelCount * kTrailCount), 0});
      out.push_back({kVowels + index / kTrailCount % kVowelCount, 0});
      if (index % kTrailCount != 0) out.push_back({kTrails + index % kTrailCount, 0});
      return;
    }
    const auto found = parts_.find(c);
    if (found == parts_.end()) {
      out.push_back({c, Combining(c)});
      return;
    }
    Decompose(found->second.first, out);
    if (found->second.second != 0) Decompose(found->second.second, out);
  }

  // The letter that two parts make; 0 for none.
  uint32_t Compose(uint32_t first, uint32_t second) const {
    if (first - kLeads < kLeadCount && second - kVowels < kVowelCount) {
      return kSyllables + ((first - kLeads) * kVowelCount + second - kVowels) * kTrailCount;
    }
    const bool open =
        first - kSyllables < kSyllableCount && (first - kSyllables) % kTrailCount == 0;
    if (open && second - kTrails - 1 < kTrailCount - 1) return first + second - kTrails;
    const auto found = composed_.find(Key(first, second));
    return found == composed_.end() ? 0 : found->second;
  }

 private:
  static uint64_t Key(uint32_t first, uint32_t second) { return uint64_t{first} << 32 | second; }

  std::unordered_map<uint32_t, std::pair<uint32_t, uint32_t>> parts_;  // second 0: there is one
  std::unordered_map<uint64_t, uint32_t> composed_;
  std::unordered_map<uint32_t, uint8_t> combining_;
};

const Tables& TheTables() {
  static const Tables tables;
  return tables;
}

// Sorts every run of marks by class; marks of one class keep their order.
void PutInOrder(std::vector<Symbol>& symbols) {
  const auto starts = [](const Symbol& symbol) { return symbol.combining == 0; };
  for (auto from = symbols.begin(); from != symbols.end();) {
    from = std::find_if_not(from, symbols.end(), starts);
    const auto to = std::find_if(from, symbols.end(), starts);
    for (auto it = from; it != to; ++it) it->place = static_cast<uint32_t>(it - from);
    std::sort(from, to, [](const Symbol& a, const Symbol& b) {
      return std::tie(a.combining, a.place) < std::tie(b.combining, b.place);
    });
    from = to;
  }
}

// Joins each symbol to the last one that starts a letter, unless one kept between them blocks it:
// one of the same class or a higher one, or another start.
void ComposeInPlace(const Tables& tables, std::vector<Symbol>& symbols) {
  constexpr size_t kNone = SIZE_MAX;
  size_t start = kNone;
  size_t kept = 0;
  for (size_t i = 0; i < symbols.size(); ++i) {
    const Symbol symbol = symbols[i];
    const bool adjacent = start != kNone && kept == start + 1;
    const bool blocked =
        start == kNone ||
        (!adjacent && (symbol.combining == 0 || symbols[kept - 1].combining >= symbol.combining));
    const uint32_t letter =
        blocked ? 0 : tables.Compose(symbols[start].code_point, symbol.code_point);
    if (letter != 0) {
      symbols[start].code_point = letter;
      continue;
    }
    if (symbol.combining == 0) start = kept;
    symbols[kept++] = symbol;
  }
  symbols.resize(kept);
}

}  // namespace

bool IsPlainlyNfc(std::string_view text) {
  // U+0300 is CC 80. Nothing below it, whose first bytes are smaller, combines or becomes another.
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0xCC; });
}

std::string ToNfc(std::string_view text) {
  if (IsPlainlyNfc(text)) return std::string(text);
  const Tables& tables = TheTables();
  std::vector<Symbol> symbols;
  symbols.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = NextUtf8(text, at);
    if (step.code_point < kFirstComposite) {
      symbols.push_back({step.code_point, 0});
    } else {
      tables.Decompose(step.code_point, symbols);
    }
    at += step.bytes;
  }
  PutInOrder(symbols);
  ComposeInPlace(tables, symbols);
  std::string out;
  out.reserve(text.size());
  for (const Symbol& symbol : symbols) AppendUtf8(symbol.code_point, out);
  return out;
}

}  // namespace tandem::text
