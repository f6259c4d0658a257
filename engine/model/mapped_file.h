// A regular file mapped read-only into memory. Owns the mapping; immutable; any thread may read.
// A file that shrinks while mapped makes reads past its end fatal (SIGBUS), as with any mmap:
// replace model files by renaming over them, never in place.
//
//   std::shared_ptr<const MappedFile> file = MappedFile::Open(path);
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace tandem {

class MappedFile {
 public:
  // Throws Error(kModelFile) when there is nothing at `path`, or no regular file with content that
  // can be read. Never blocks (a FIFO is refused, not waited for).
  static std::shared_ptr<const MappedFile> Open(const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::span<const std::byte> bytes_;
};

}  // namespace tandem
