// "Did you mean ...?": the nearest of a set of known words, for keys, flags and names.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

// The candidate with the least edit distance to `word` when that is at most a third of its length
// (at least 1, at most 3); empty when none is near.
std::string NearestWord(std::string_view word, std::span<const std::string> candidates);

// The candidates that share most of the word's parts ("pcie4" and "x16" of "pcie4-x16"), at most
// `most`, those with fewer other parts first; empty when none shares any.
std::vector<std::string> NamesLike(std::string_view word, std::span<const std::string> candidates,
                                   size_t most);

// " (did you mean 'x'?)" or "".
std::string DidYouMean(std::string_view word, std::span<const std::string> candidates);

}  // namespace tandem
