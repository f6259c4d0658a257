#include "engine/model/text/special_matcher.h"

namespace tandem::text {
namespace {

uint64_t Edge(uint32_t node, char byte) {
  return (uint64_t{node} << 8) | static_cast<uint8_t>(byte);
}

}  // namespace

void SpecialMatcher::Add(std::string_view spelling, int32_t id) {
  if (spelling.empty()) return;
  uint32_t node = 0;
  for (char byte : spelling) {
    const auto next = static_cast<uint32_t>(id_of_node_.size());
    const auto [it, inserted] = children_.try_emplace(Edge(node, byte), next);
    if (inserted) id_of_node_.push_back(-1);
    node = it->second;
  }
  id_of_node_[node] = id;
}

std::optional<SpecialMatcher::Match> SpecialMatcher::Find(std::string_view text,
                                                          size_t from) const {
  if (children_.empty()) return std::nullopt;
  for (size_t begin = from; begin < text.size(); ++begin) {
    std::optional<Match> longest;
    uint32_t node = 0;
    for (size_t at = begin; at < text.size(); ++at) {
      const auto it = children_.find(Edge(node, text[at]));
      if (it == children_.end()) break;
      node = it->second;
      if (id_of_node_[node] >= 0) longest = Match{begin, at - begin + 1, id_of_node_[node]};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

}  // namespace tandem::text
