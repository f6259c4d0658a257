// The merge step of byte-pair encoding, on token ids. A word starts as one symbol per byte; the
// adjacent pair with the lowest rank (the leftmost of equals) is merged until none is left.
// Symbols sit in a linked list and candidate pairs in a heap, so a word of n bytes costs
// O(n log n), however long it is.
//
// Built once, then immutable; any thread may call Merge.
//
//   MergeTable merges;  merges.Add(left, right, {.rank = 0, .merged = id});
//   merges.Merge(symbols);   // in place
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace tandem::text {

class MergeTable {
 public:
  struct Rule {
    int32_t rank = 0;    // lower goes first
    int32_t merged = 0;  // the token that the pair becomes
  };

  void Reserve(size_t count) { rules_.reserve(count); }
  // False when the pair already has a rule, which then stays.
  bool Add(int32_t left, int32_t right, Rule rule);

  // `symbols`: ids in text order; a negative id never merges.
  void Merge(std::vector<int32_t>& symbols) const;

 private:
  const Rule* Find(int32_t left, int32_t right) const;

  std::unordered_map<uint64_t, Rule> rules_;  // left << 32 | right
};

}  // namespace tandem::text
