#include "engine/model/text/byte_alphabet.h"

#include <array>

#include "engine/model/text/utf8.h"

namespace tandem::text {
namespace {

bool StandsForItself(uint32_t byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

constexpr uint32_t kFirstBorrowed = 0x100;
constexpr uint32_t kBorrowed = 68;

struct Alphabet {
  std::array<std::string, 256> character;           // by byte
  std::array<uint8_t, kBorrowed> byte_of_borrowed;  // by code point - 0x100

  Alphabet() : byte_of_borrowed{} {
    uint32_t next = 0;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      uint32_t code_point = byte;
      if (!StandsForItself(byte)) {
        byte_of_borrowed[next] = static_cast<uint8_t>(byte);
        code_point = kFirstBorrowed + next++;
      }
      AppendUtf8(code_point, character[byte]);
    }
  }
};

const Alphabet& TheAlphabet() {
  static const Alphabet alphabet;
  return alphabet;
}

}  // namespace

const std::string& CharacterOfByte(uint8_t byte) { return TheAlphabet().character[byte]; }

std::string BytesOfSpelling(std::string_view spelling) {
  const Alphabet& alphabet = TheAlphabet();
  std::string out;
  for (size_t at = 0; at < spelling.size();) {
    const Utf8Step step = NextUtf8(spelling, at);
    const uint32_t c = step.code_point;
    if (step.kind == Utf8Kind::kValid && c < 256 && StandsForItself(c)) {
      out.push_back(static_cast<char>(c));
    } else if (step.kind == Utf8Kind::kValid && c >= kFirstBorrowed &&
               c < kFirstBorrowed + kBorrowed) {
      out.push_back(static_cast<char>(alphabet.byte_of_borrowed[c - kFirstBorrowed]));
    } else {
      out += spelling.substr(at, step.bytes);
    }
    at += step.bytes;
  }
  return out;
}

}  // namespace tandem::text
