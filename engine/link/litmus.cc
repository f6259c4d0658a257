#include "engine/link/litmus.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "engine/base/error.h"

namespace tandem {
namespace {

using peer::kLitmusDone;
using peer::kLitmusStride;
using peer::LitmusPattern;

constexpr uint64_t kBoundNanos = 2'000'000'000;

class Litmus {
 public:
  Litmus(LitmusPattern pattern, bool fenced, const LitmusSize& size, Device& d0, Device& d1,
         PeerKernels& kernels)
      : size_(size), devices_{&d0, &d1}, kernels_(kernels) {
    args_.pattern = pattern;
    args_.fenced = fenced;
    args_.turns = size.turns;
    args_.bound_nanos = kBoundNanos;
  }

  // x in the memory of devices_[x_at], y in the other's.
  LitmusCounts Run(size_t x_at) {
    const uint64_t slots = 2 * size_.blocks * peer::LitmusSlotBytes(size_.threads);
    const Buffer x = Words(x_at, std::max(pairs() * kLitmusStride, slots / sizeof(uint32_t)));
    const Buffer y = Words(1 - x_at, pairs() * kLitmusStride);
    const Buffer seen[] = {Words(0, pairs()), Words(1, pairs())};
    const Buffer turn[] = {Words(0, size_.blocks * kLitmusStride),
                           Words(1, size_.blocks * kLitmusStride)};
    for (uint32_t role : {0u, 1u}) {
      args_.role = role;
      args_.x = x.as<uint32_t>();
      args_.y = y.as<uint32_t>();
      args_.seen = seen[role].as<uint32_t>();
      args_.here = turn[role].as<uint32_t>();
      args_.there = turn[1 - role].as<uint32_t>();
      Device& device = *devices_[role];
      kernels_.Litmus(static_cast<size_t>(device.id().value), *device.queue(QueueRole::kComm),
                      size_.blocks, size_.threads, args_);
    }
    for (Device* device : devices_) device->queue(QueueRole::kComm)->Finish();
    return Count(Read(0, seen[0]), Read(1, seen[1]));
  }

 private:
  uint64_t pairs() const { return uint64_t{size_.blocks} * size_.threads * size_.turns; }
  Buffer Words(size_t at, uint64_t count) {
    return devices_[at]->Allocate(MemoryUse::kWorkspace, Bytes{4 * count}, "link litmus");
  }
  std::vector<uint32_t> Read(size_t at, const Buffer& words) {
    std::vector<uint32_t> read(pairs());
    devices_[at]->Download(reinterpret_cast<std::byte*>(read.data()), words.data(),
                           4 * read.size());
    return read;
  }

  LitmusCounts Count(const std::vector<uint32_t>& first, const std::vector<uint32_t>& second) {
    LitmusCounts counts;
    for (size_t i = 0; i < first.size(); ++i) {
      if (first[i] == 0 || second[i] == 0) {
        Fail(ErrorCode::kDevice,
             fmt::format("link litmus: {} and {} did not meet within {} s", devices_[0]->name(),
                         devices_[1]->name(), kBoundNanos / 1'000'000'000));
      }
      ++counts.pairs;
      const bool forbidden = args_.pattern == LitmusPattern::kStoreBuffering
                                 ? first[i] == kLitmusDone && second[i] == kLitmusDone
                                 : (second[i] & ~kLitmusDone) == 1;
      if (forbidden) ++counts.forbidden;
    }
    return counts;
  }

  const LitmusSize size_;
  Device* const devices_[2];
  PeerKernels& kernels_;
  peer::LitmusArgs args_;
};

const char* NameOf(LitmusPattern pattern) {
  switch (pattern) {
    case LitmusPattern::kMessagePassing:
      return "message passing";
    case LitmusPattern::kStoreBuffering:
      return "store buffering";
    case LitmusPattern::kSlots:
      return "payload in slots";
  }
  return "?";
}

}  // namespace

LitmusCounts RunLitmus(LitmusPattern pattern, bool fenced, const LitmusSize& size, Device& d0,
                       Device& d1, PeerKernels& kernels) {
  Litmus litmus(pattern, fenced, size, d0, d1, kernels);
  LitmusCounts counts = litmus.Run(0);
  const LitmusCounts other = litmus.Run(1);
  counts.pairs += other.pairs;
  counts.forbidden += other.forbidden;
  return counts;
}

void TestOrder(Device& d0, Device& d1, PeerKernels& kernels, int rounds) {
  for (int round = 0; round < rounds; ++round) {
    for (LitmusPattern pattern :
         {LitmusPattern::kMessagePassing, LitmusPattern::kStoreBuffering, LitmusPattern::kSlots}) {
      const LitmusCounts counts = RunLitmus(pattern, true, LitmusSize{}, d0, d1, kernels);
      if (counts.forbidden == 0) continue;
      Fail(ErrorCode::kDevice,
           fmt::format("link litmus: {} between {} and {}: {} of {} pairs came in an order that "
                       "fences forbid; do not trust path p2p here: name --path host_staged or nccl",
                       NameOf(pattern), d0.name(), d1.name(), counts.forbidden, counts.pairs));
    }
  }
}

}  // namespace tandem
