// The alphabet of byte-level BPE: each of the 256 bytes has one printable character that stands for
// it in the vocabulary. Bytes that print in Latin-1 (33-126, 161-172, 174-255) stand for
// themselves; the other 68 take U+0100, U+0101, ... in byte order. So a space is U+0120.
// Source: the encoder published with GPT-2. Constant tables; any thread may read them.
//
//   std::string spelling = CharacterOfByte(' ');  // "\u0120" in UTF-8
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::text {

// The character that stands for `byte`, in UTF-8.
const std::string& CharacterOfByte(uint8_t byte);

// The bytes that a vocabulary spelling stands for. A character outside the alphabet (some files
// keep raw text in a token) stands for its own UTF-8.
std::string BytesOfSpelling(std::string_view spelling);

}  // namespace tandem::text
