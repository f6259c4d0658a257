#include "engine/base/sha256.h"

#include <openssl/evp.h>

#include <array>
#include <fstream>
#include <memory>

#include "engine/base/check.h"
#include "engine/base/error.h"

namespace tandem {
namespace {

struct ContextDeleter {
  void operator()(EVP_MD_CTX* ctx) const { EVP_MD_CTX_free(ctx); }
};

class Hasher {
 public:
  Hasher() : ctx_(EVP_MD_CTX_new()) {
    Check(ctx_ && EVP_DigestInit_ex(ctx_.get(), EVP_sha256(), nullptr) == 1, "sha256: init");
  }
  void Update(const void* data, size_t size) {
    Check(EVP_DigestUpdate(ctx_.get(), data, size) == 1, "sha256: update");
  }
  std::string Hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int size = 0;
    Check(EVP_DigestFinal_ex(ctx_.get(), digest.data(), &size) == 1, "sha256: final");
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string hex;
    for (unsigned int i = 0; i < size; ++i) {
      hex += kDigits[digest[i] >> 4];
      hex += kDigits[digest[i] & 15];
    }
    return hex;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, ContextDeleter> ctx_;
};

}  // namespace

std::string Sha256Hex(std::string_view text) {
  Hasher hasher;
  hasher.Update(text.data(), text.size());
  return hasher.Hex();
}

std::string Sha256Hex(std::span<const std::byte> bytes) {
  Hasher hasher;
  hasher.Update(bytes.data(), bytes.size());
  return hasher.Hex();
}

std::string Sha256Hex(std::span<const std::span<const std::byte>> pieces) {
  Hasher hasher;
  for (const std::span<const std::byte> piece : pieces) {
    hasher.Update(piece.data(), piece.size());
  }
  return hasher.Hex();
}

std::string Sha256HexOfFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    Fail(ErrorCode::kIo, "sha256: cannot read " + path);
  }
  Hasher hasher;
  std::array<char, 1 << 16> chunk{};
  while (file.read(chunk.data(), chunk.size()) || file.gcount() > 0) {
    hasher.Update(chunk.data(), static_cast<size_t>(file.gcount()));
  }
  return hasher.Hex();
}

}  // namespace tandem
