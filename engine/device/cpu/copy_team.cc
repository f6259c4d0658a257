#include "engine/device/cpu/copy_team.h"

#include <algorithm>
#include <cstring>
#include <thread>

namespace tandem {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kWorthSharing = 64 * kPage;  // less is copied before a team is awake

}  // namespace

CopyTeam::CopyTeam(int threads) {
  if (threads > 1) pool_ = std::make_unique<ThreadPool>(ThreadPoolOptions{.threads = threads});
}

int CopyTeam::UsefulThreads() {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 4, 1, 4);
}

void CopyTeam::Copy(std::byte* to, const std::byte* from, size_t bytes) noexcept {
  if (pool_ == nullptr || bytes < kWorthSharing) {
    std::memcpy(to, from, bytes);
    return;
  }
  std::lock_guard lock(mutex_);
  pool_->Run([&](int thread, int threads) {
    const WorkRange part = SplitWork(static_cast<int64_t>(bytes), thread, threads, kPage);
    std::memcpy(to + part.begin, from + part.begin, static_cast<size_t>(part.end - part.begin));
  });
}

}  // namespace tandem
