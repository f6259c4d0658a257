// Results files: whole lines, synced, locked, and mended after a kill.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "engine/base/error.h"
#include "engine/lab/record.h"

namespace tandem {
namespace {

[[noreturn]] void FailIo(const std::string& path, const char* what) {
  Fail(ErrorCode::kIo, fmt::format("results: cannot {} {}: {}", what, path, std::strerror(errno)));
}

// Length of the file up to and with its last newline.
off_t WholeLines(int fd, const std::string& path) {
  struct stat info{};
  if (fstat(fd, &info) != 0) FailIo(path, "examine");
  char c = 0;
  off_t end = info.st_size;
  while (end > 0) {
    if (pread(fd, &c, 1, end - 1) != 1) FailIo(path, "read");
    if (c == '\n') break;
    --end;
  }
  return end;
}

}  // namespace

std::vector<Record> ReadRecords(const std::string& path, bool* torn) {
  if (torn != nullptr) *torn = false;
  std::ifstream file(path, std::ios::binary);
  if (!file) Fail(ErrorCode::kNotFound, "results: cannot read " + path);
  std::vector<Record> records;
  std::string line;
  for (size_t number = 1; std::getline(file, line); ++number) {
    bool whole = !file.eof();
    if (line.empty()) continue;
    nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) {
      if (!whole) {
        if (torn != nullptr) *torn = true;
        break;
      }
      Fail(ErrorCode::kInvalidArgument,
           fmt::format("results: {}:{}: not a JSON record; want the .jsonl files of tandem run, or "
                       "their folder",
                       path, number));
    }
    try {
      records.push_back(RecordFromJson(json));
    } catch (const Error& error) {
      Fail(error.code(), fmt::format("{}:{}: {}", path, number, error.what()));
    }
  }
  return records;
}

RecordWriter::RecordWriter(const std::string& path) : path_(path) {
  fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) FailIo(path, "open");
  if (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    close(fd_);
    Fail(ErrorCode::kIo,
         fmt::format("results: {} is in use by another run; wait for it or choose another --out",
                     path));
  }
  off_t whole = WholeLines(fd_, path);
  if (ftruncate(fd_, whole) != 0) {
    close(fd_);
    FailIo(path, "mend");
  }
}

RecordWriter::~RecordWriter() {
  if (fd_ >= 0) close(fd_);
}

void RecordWriter::Append(const Record& record) {
  std::string line =
      ToJson(record).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  off_t start = WholeLines(fd_, path_);
  size_t done = 0;
  while (done < line.size()) {
    ssize_t n = write(fd_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      int saved = errno;
      // A full disk must not leave half a record behind.
      [[maybe_unused]] int cut = ftruncate(fd_, start);
      errno = saved;
      FailIo(path_, "write");
    }
    done += static_cast<size_t>(n);
  }
  if (fsync(fd_) != 0) FailIo(path_, "sync");
}

}  // namespace tandem
