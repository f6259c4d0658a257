#include "engine/base/suggest.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace tandem {
namespace {

// Levenshtein distance, one row at a time.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substitute, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

// The parts of a name between '-', '_', '.', ' ' and '/'.
std::vector<std::string_view> PartsOf(std::string_view name) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin < name.size();) {
    const size_t end = std::min(name.find_first_of("-_. /", begin), name.size());
    if (end > begin) parts.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace

std::string NearestWord(std::string_view word, std::span<const std::string> candidates) {
  size_t best = std::clamp<size_t>(word.size() / 3, 1, 3) + 1;
  std::string nearest;
  for (const std::string& candidate : candidates) {
    size_t distance = EditDistance(word, candidate);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

std::vector<std::string> NamesLike(std::string_view word, std::span<const std::string> candidates,
                                   size_t most) {
  const std::vector<std::string_view> wanted = PartsOf(word);
  struct Like {
    size_t shared, others;
    std::string name;
  };
  std::vector<Like> likes;
  for (const std::string& candidate : candidates) {
    const std::vector<std::string_view> parts = PartsOf(candidate);
    const auto shared =
        static_cast<size_t>(std::ranges::count_if(wanted, [&](std::string_view part) {
          return std::ranges::find(parts, part) != parts.end();
        }));
    if (shared > 0)
      likes.push_back({shared, parts.size() - std::min(shared, parts.size()), candidate});
  }
  std::ranges::stable_sort(likes, [](const Like& a, const Like& b) {
    return a.shared != b.shared ? a.shared > b.shared : a.others < b.others;
  });
  if (likes.size() > most) likes.resize(most);
  std::vector<std::string> names;
  for (Like& like : likes) names.push_back(std::move(like.name));
  return names;
}

std::string DidYouMean(std::string_view word, std::span<const std::string> candidates) {
  std::string nearest = NearestWord(word, candidates);
  return nearest.empty() ? "" : " (did you mean '" + nearest + "'?)";
}

}  // namespace tandem
