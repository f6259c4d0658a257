#include "engine/model/text/bpe.h"

#include <cstddef>
#include <queue>

namespace tandem::text {
namespace {

constexpr int32_t kNone = -1;

uint64_t PairKey(int32_t left, int32_t right) {
  return (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right);
}

struct Symbol {
  int32_t id = kNone;
  int32_t previous = kNone;
  int32_t next = kNone;
  bool alive = true;
};

// A pair that could be merged when it was found. It is stale once either side has changed, which
// comparing the ids tells.
struct Candidate {
  int32_t rank = 0;
  int32_t position = 0;  // of the left symbol
  int32_t left_id = 0;
  int32_t right_id = 0;
  int32_t merged = 0;

  // std::priority_queue takes the greatest first, so "greater" is: lower rank, then further left.
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

std::vector<Symbol> LinkedList(const std::vector<int32_t>& ids) {
  std::vector<Symbol> list(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto position = static_cast<int32_t>(i);
    list[i] = {ids[i], position - 1, i + 1 < ids.size() ? position + 1 : kNone, true};
  }
  return list;
}

}  // namespace

bool MergeTable::Add(int32_t left, int32_t right, Rule rule) {
  return rules_.try_emplace(PairKey(left, right), rule).second;
}

const MergeTable::Rule* MergeTable::Find(int32_t left, int32_t right) const {
  if (left < 0 || right < 0) return nullptr;
  const auto it = rules_.find(PairKey(left, right));
  return it == rules_.end() ? nullptr : &it->second;
}

void MergeTable::Merge(std::vector<int32_t>& symbols) const {
  if (symbols.size() < 2) return;
  std::vector<Symbol> list = LinkedList(symbols);
  std::priority_queue<Candidate> candidates;
  const auto consider = [&](int32_t position) {
    if (position == kNone || list[position].next == kNone) return;
    const int32_t left = list[position].id;
    const int32_t right = list[list[position].next].id;
    if (const Rule* rule = Find(left, right)) {
      candidates.push({rule->rank, position, left, right, rule->merged});
    }
  };
  for (size_t i = 0; i + 1 < list.size(); ++i) consider(static_cast<int32_t>(i));

  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Symbol& left = list[best.position];
    if (!left.alive || left.id != best.left_id || left.next == kNone) continue;
    Symbol& right = list[left.next];
    if (right.id != best.right_id) continue;
    right.alive = false;
    left.id = best.merged;
    left.next = right.next;
    if (left.next != kNone) list[left.next].previous = best.position;
    consider(left.previous);
    consider(best.position);
  }

  symbols.clear();
  for (int32_t at = 0; at != kNone; at = list[at].next) symbols.push_back(list[at].id);
}

}  // namespace tandem::text
