// SHA-256 (FIPS 180-4) as lower-case hex, by OpenSSL. Used for plan hashes, plugin binaries and
// model files: names for things in records, not security.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace tandem {

std::string Sha256Hex(std::string_view text);
std::string Sha256Hex(std::span<const std::byte> bytes);
// Of the pieces one after the other.
std::string Sha256Hex(std::span<const std::span<const std::byte>> pieces);
// Throws Error(kIo) when the file cannot be read.
std::string Sha256HexOfFile(const std::string& path);

}  // namespace tandem
