// The merge step of SentencePiece's BPE: a text starts as one symbol per code point; of the
// adjacent pairs whose concatenation is a piece, the one whose piece scores highest (the leftmost
// of equals) is merged, until none is left. Unlike byte-level BPE there are no words and no list of
// merges: the whole text is one list of symbols, and any pair that spells a piece may merge.
// Source: SentencePiece's bpe_model, which llama.cpp follows.
//
// Candidates sit in a heap and a piece is looked up once a candidate, so a text of n bytes costs
// O(n log n) and n look-ups of at most the longest piece.
//
// Built once, then immutable; any thread may call Merge. Keeps views of the spellings it was given.
//
//   PieceTable table;  table.Add("\u2581a", {.id = 5, .score = -3.0f});
//   table.Merge(text, [&](std::string_view symbol, int32_t id) { ... });   // id -1: no piece
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <unordered_map>

namespace tandem::text {

class PieceTable {
 public:
  struct Piece {
    int32_t id = -1;
    float score = 0;      // no NaN
    bool unused = false;  // may be a step of a merge, but comes out as the parts that made it
  };

  void Reserve(size_t count) { pieces_.reserve(count); }
  // The spelling must outlive the table.
  void Add(std::string_view spelling, const Piece& piece);

  using Emit = std::function<void(std::string_view symbol, int32_t id)>;
  // `text`: valid UTF-8. Calls `emit` for what is left after merging, in order.
  void Merge(std::string_view text, const Emit& emit) const;

 private:
  class Run;
  const Piece* Find(std::string_view spelling) const;

  std::unordered_map<std::string_view, Piece> pieces_;
  size_t longest_ = 0;
};

}  // namespace tandem::text
