// Unicode's tables behind nfc.h, flat, in the order of their first numbers.
// nfc_table.cc is made by tools/make-nfc-table.
#pragma once

#include <cstdint>
#include <span>

namespace tandem::text::nfc {

// Letter, first part, second part: canonical decompositions that composing undoes.
std::span<const uint32_t> Composites();
// The same, but composing leaves the parts apart.
std::span<const uint32_t> Pairs();
// Code point, what it always becomes.
std::span<const uint32_t> Singletons();
// First, last, canonical combining class; code points in no range have class 0.
std::span<const uint32_t> CombiningRanges();

}  // namespace tandem::text::nfc
