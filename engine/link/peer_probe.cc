#include "engine/link/peer_probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "engine/base/error.h"

namespace tandem {
namespace {

constexpr int kRounds = 4;  // the first is for warming up

// Another for every element, rank and round; sums of them are exact.
float Value(uint64_t i, uint64_t rank, uint64_t round) {
  return static_cast<float>((i * 7 + rank * 131 + round * 17) % 4093) - 2000.0f;
}

Nanos Now() {
  return Nanos{std::chrono::duration_cast<std::chrono::nanoseconds>(
                   std::chrono::steady_clock::now().time_since_epoch())
                   .count()};
}

// What is asked for the sums.
struct Summer {
  DirectCollectives& direct;
  PathKind path;
  std::function<std::optional<TransportFailure>()> take_failure;
};

class Probe {
 public:
  Probe(Summer summer, std::span<const std::unique_ptr<Device>> devices, uint64_t n)
      : summer_(std::move(summer)), devices_(devices), n_(n), values_(n) {
    ledger_.BeginStep(ProgramKind::kDecode);
    ledger_.BeginOp(0, OpKind::kAllReduce, BlockId{0}, WireType::kF32);
    for (const auto& device : devices) {
      in_.push_back(device->Allocate(MemoryUse::kWorkspace, Bytes{4 * n}, "link probe"));
      out_.push_back(device->Allocate(MemoryUse::kWorkspace, Bytes{4 * n}, "link probe"));
    }
  }

  Nanos Round(uint64_t round) {
    std::vector<DirectEnd> ends;
    for (size_t d = 0; d < devices_.size(); ++d) {
      Device& device = *devices_[d];
      for (uint64_t i = 0; i < n_; ++i) values_[i] = Value(i, d, round);
      device.Upload(in_[d].data(), reinterpret_cast<const std::byte*>(values_.data()), 4 * n_);
      ends.push_back(DirectEnd{.device = device.id(),
                               .in = in_[d].as<float>(),
                               .out = out_[d].as<float>(),
                               .queue = device.queue(QueueRole::kComm)});
    }
    const Nanos begin = Now();
    summer_.direct.AllReduce(WireType::kF32, ends, n_, ledger_);
    for (const DirectEnd& end : ends) end.queue->Finish();
    const Nanos time = Now() - begin;
    if (const auto failure = summer_.take_failure()) Fail(ErrorCode::kDevice, failure->what);
    Compare(round);
    return time;
  }

 private:
  void Compare(uint64_t round) {
    for (size_t d = 0; d < devices_.size(); ++d) {
      devices_[d]->Download(reinterpret_cast<std::byte*>(values_.data()), out_[d].data(), 4 * n_);
      for (uint64_t i = 0; i < n_; ++i) {
        float want = 0;
        for (size_t r = 0; r < devices_.size(); ++r) want += Value(i, r, round);
        if (values_[i] == want) continue;
        Fail(ErrorCode::kDevice,
             fmt::format("link probe: path {}: element {} of a sum of {} on {} is {} (want {}): do "
                         "not trust this path, choose another with --path",
                         ToString(summer_.path), i, n_, devices_[d]->name(), values_[i], want));
      }
    }
  }

  const Summer summer_;
  const std::span<const std::unique_ptr<Device>> devices_;
  const uint64_t n_;
  std::vector<float> values_;
  TrafficLedger ledger_;
  std::vector<Buffer> in_, out_;
};

}  // namespace

Nanos TimeAllReduce(PeerLink& link, std::span<const std::unique_ptr<Device>> devices, uint64_t n) {
  Probe probe(Summer{link, link.options().path, [&link] { return link.TakeFailure(); }}, devices,
              n);
  Nanos best = probe.Round(0);
  for (int round = 1; round < kRounds; ++round) {
    const Nanos time = probe.Round(static_cast<uint64_t>(round));
    best = round == 1 ? time : std::min(best, time);
  }
  return best;
}

void CheckSums(Transport& transport, std::span<const std::unique_ptr<Device>> devices) {
  constexpr uint64_t kRow = 4096;
  DirectCollectives* const direct = transport.direct();
  if (direct == nullptr || !direct->TakesAllReduce(WireType::kF32, kRow, devices.size())) return;
  Probe probe(Summer{*direct, transport.path(), [&transport] { return transport.TakeFailure(); }},
              devices, kRow);
  for (uint64_t round = 0; round < kRounds; ++round) probe.Round(round);
}

}  // namespace tandem
