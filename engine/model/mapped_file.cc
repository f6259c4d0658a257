#include "engine/model/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "engine/base/error.h"

namespace tandem {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void RefuseWithErrno(const std::string& path, const char* what, int error) {
  const std::string reason = std::generic_category().message(error);
  if (error == ENOENT || error == ENOTDIR) {
    Fail(ErrorCode::kModelFile,
         fmt::format("model file: {}: {} (check the path, or see `tandem models`)", path, reason));
  }
  Fail(ErrorCode::kModelFile, fmt::format("model file: {}: {}: {}", path, what, reason));
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK so that opening a FIFO returns; it means nothing to regular files.
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (fd.get() < 0) {
    RefuseWithErrno(path, "cannot open", errno);
  }
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) {
    RefuseWithErrno(path, "cannot stat", errno);
  }
  if (!S_ISREG(status.st_mode)) {
    Fail(ErrorCode::kModelFile,
         fmt::format("model file: {}: {} (want a regular file)", path,
                     S_ISDIR(status.st_mode) ? "is a directory" : "is not a regular file"));
  }
  if (status.st_size <= 0) {
    Fail(ErrorCode::kModelFile, fmt::format("model file: {}: is empty (want a model file)", path));
  }
  const auto size = static_cast<size_t>(status.st_size);
  void* base = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (base == MAP_FAILED) {
    RefuseWithErrno(path, "cannot map", errno);
  }
  return std::shared_ptr<const MappedFile>(
      new MappedFile({static_cast<const std::byte*>(base), size}));
}

MappedFile::~MappedFile() { ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()); }

}  // namespace tandem
