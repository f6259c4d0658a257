// Finds tokens that are spelled out in text ("<|im_start|>"): leftmost first, and of several that
// start at one place the longest. A byte trie, so a search costs at most the longest token per
// byte of text, however many tokens there are.
//
// Built once, then immutable; any thread may search.
//
//   SpecialMatcher m;  m.Add("<|im_end|>", 2);
//   if (auto hit = m.Find(text, 0)) text.substr(0, hit->begin) ...;
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tandem::text {

class SpecialMatcher {
 public:
  struct Match {
    size_t begin = 0;
    size_t size = 0;
    int32_t id = 0;
  };

  SpecialMatcher() : id_of_node_(1, -1) {}

  // Empty spellings are ignored: they would match everywhere.
  void Add(std::string_view spelling, int32_t id);

  // The first match that begins at `from` or later.
  std::optional<Match> Find(std::string_view text, size_t from) const;

 private:
  std::unordered_map<uint64_t, uint32_t> children_;  // node << 8 | byte -> node
  std::vector<int32_t> id_of_node_;                  // -1: no token ends here
};

}  // namespace tandem::text
