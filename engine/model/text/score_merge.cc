#include "engine/model/text/score_merge.h"

#include <algorithm>
#include <queue>
#include <utility>
#include <vector>

#include "engine/model/text/utf8.h"

namespace tandem::text {
namespace {

constexpr int32_t kNone = -1;

struct Symbol {
  std::string_view text;  // empty: merged into its left neighbour
  int32_t previous = kNone;
  int32_t next = kNone;
};

// Stale once either side has changed, which the size tells: symbols only ever grow.
struct Candidate {
  float score = 0;
  int32_t position = 0;  // of the left symbol
  size_t size = 0;       // bytes of both

  // std::priority_queue takes the greatest first: the higher score, then further left.
  bool operator<(const Candidate& other) const {
    return score != other.score ? score < other.score : position > other.position;
  }
};

}  // namespace

// One text being merged.
class PieceTable::Run {
 public:
  Run(const PieceTable& table, std::string_view text) : table_(table) {
    for (size_t at = 0; at < text.size();) {
      const size_t size = NextUtf8(text, at).bytes;
      const auto index = static_cast<int32_t>(symbols_.size());
      symbols_.push_back({text.substr(at, size), index - 1, index + 1});
      at += size;
    }
    if (!symbols_.empty()) symbols_.back().next = kNone;
  }

  void MergeAll() {
    for (size_t i = 0; i + 1 < symbols_.size(); ++i) Consider(static_cast<int32_t>(i));
    while (!candidates_.empty()) {
      const Candidate best = candidates_.top();
      candidates_.pop();
      Symbol& left = symbols_[best.position];
      if (left.text.empty() || left.next == kNone) continue;
      Symbol& right = symbols_[left.next];
      if (left.text.size() + right.text.size() != best.size) continue;
      left.text = Joined(left, right);
      right.text = {};
      left.next = right.next;
      if (left.next != kNone) symbols_[left.next].previous = best.position;
      if (left.previous != kNone) Consider(left.previous);
      Consider(best.position);
    }
  }

  void EmitAll(const Emit& emit) const {
    if (symbols_.empty()) return;
    for (int32_t at = 0; at != kNone; at = symbols_[at].next) EmitSymbol(symbols_[at].text, emit);
  }

 private:
  using Halves = std::pair<std::string_view, std::string_view>;

  // Symbols are neighbours in one text, so both together are a view of it as well.
  static std::string_view Joined(const Symbol& left, const Symbol& right) {
    return {left.text.data(), left.text.size() + right.text.size()};
  }

  void Consider(int32_t position) {
    const Symbol& left = symbols_[position];
    if (left.next == kNone) return;
    const Symbol& right = symbols_[left.next];
    const std::string_view both = Joined(left, right);
    const Piece* piece = table_.Find(both);
    if (piece == nullptr) return;
    candidates_.push({piece->score, position, both.size()});
    if (piece->unused) halves_[both] = {left.text, right.text};
  }

  // An unused piece goes back into the two that made it, and those as well.
  void EmitSymbol(std::string_view text, const Emit& emit) const {
    std::vector<std::string_view> stack = {text};
    while (!stack.empty()) {
      const std::string_view symbol = stack.back();
      stack.pop_back();
      const Piece* piece = table_.Find(symbol);
      if (piece != nullptr && piece->unused) {
        if (const auto it = halves_.find(symbol); it != halves_.end()) {
          stack.push_back(it->second.second);
          stack.push_back(it->second.first);
          continue;
        }
      }
      emit(symbol, piece == nullptr ? -1 : piece->id);
    }
  }

  const PieceTable& table_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate> candidates_;
  std::unordered_map<std::string_view, Halves> halves_;  // of unused pieces
};

void PieceTable::Add(std::string_view spelling, const Piece& piece) {
  pieces_[spelling] = piece;
  longest_ = std::max(longest_, spelling.size());
}

const PieceTable::Piece* PieceTable::Find(std::string_view spelling) const {
  if (spelling.size() > longest_) return nullptr;
  const auto it = pieces_.find(spelling);
  return it == pieces_.end() ? nullptr : &it->second;
}

void PieceTable::Merge(std::string_view text, const Emit& emit) const {
  Run run(*this, text);
  run.MergeAll();
  run.EmitAll(emit);
}

}  // namespace tandem::text
