#include "engine/run/path_test.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/base/error.h"
#include "engine/link/collectives.h"
#include "engine/link/self_test.h"

namespace tandem {
namespace {

// Elements of the sums: fewer than a wire block, a decode row, and more than staging holds.
constexpr uint64_t kSums[] = {5, 4096, kStagingChunk / sizeof(float) + 77};
constexpr uint64_t kRounds = 8;
constexpr uint64_t kScratch = kStagingChunk;

// In [-1, 1), another for every element, rank and round.
float Value(uint64_t i, uint64_t rank, uint64_t round) {
  uint64_t x = i * 0x9e3779b97f4a7c15u + rank * 0xbf58476d1ce4e5b9u + round * 0x94d049bb133111ebu;
  x ^= x >> 31;
  x *= 0x9e3779b97f4a7c15u;
  return static_cast<float>(static_cast<int64_t>(x)) * 0x1p-63f;
}

class SumTest {
 public:
  SumTest(Backend& backend, Transport& transport) : backend_(backend), transport_(transport) {
    ledger_.BeginStep(ProgramKind::kDecode);
    ledger_.BeginOp(0, OpKind::kAllReduce, BlockId{0}, WireType::kF32);
    const uint64_t most = kSums[2] * sizeof(float);
    for (const auto& device : backend.devices()) {
      in_.push_back(device->Allocate(MemoryUse::kWorkspace, Bytes{most}, "path test"));
      out_.push_back(device->Allocate(MemoryUse::kWorkspace, Bytes{most}, "path test"));
      scratch_.push_back(device->Allocate(MemoryUse::kWorkspace, Bytes{kScratch}, "path test"));
    }
  }

  // Throws Error(kDevice) naming the first wrong element.
  void Run() {
    for (uint64_t n : kSums) {
      for (uint64_t round = 0; round < kRounds; ++round) Sum(n, round);
    }
  }

 private:
  void Sum(uint64_t n, uint64_t round) {
    const size_t count = backend_.devices().size();
    std::vector<float> want(n), part(n);
    std::vector<CollectiveRank> ranks;
    for (size_t r = 0; r < count; ++r) {
      Device& device = *backend_.devices()[r];
      for (uint64_t i = 0; i < n; ++i) {
        part[i] = Value(i, r, round);
        want[i] = r == 0 ? part[i] : want[i] + part[i];
      }
      device.Upload(in_[r].data(), reinterpret_cast<const std::byte*>(part.data()),
                    n * sizeof(float));
      ranks.push_back(CollectiveRank{.device = device.id(),
                                     .in = in_[r].as<float>(),
                                     .out = out_[r].as<float>(),
                                     .scratch = scratch_[r].data(),
                                     .queue = device.queue(QueueRole::kComm),
                                     .wire_ops = &backend_.wire_ops(r)});
    }
    AllReduce(CollectiveContext{.transport = &transport_,
                                .ledger = &ledger_,
                                .wire = WireType::kF32,
                                .scratch_bytes = kScratch},
              Algorithm::kOneShot, ranks, n);
    for (size_t r = 0; r < count; ++r) {
      if (ranks[r].queue != nullptr) ranks[r].queue->Finish();
    }
    if (const auto failure = transport_.TakeFailure()) Fail(ErrorCode::kDevice, failure->what);
    for (size_t r = 0; r < count; ++r) Compare(r, n, want, part);
  }

  void Compare(size_t rank, uint64_t n, const std::vector<float>& want, std::vector<float>& got) {
    Device& device = *backend_.devices()[rank];
    for (DeviceQueue* queue :
         {device.queue(QueueRole::kCopyIn), device.queue(QueueRole::kCopyOut)}) {
      if (queue != nullptr) queue->Finish();
    }
    device.Download(reinterpret_cast<std::byte*>(got.data()), out_[rank].data(), n * sizeof(float));
    for (uint64_t i = 0; i < n; ++i) {
      if (std::memcmp(&got[i], &want[i], sizeof(float)) == 0) continue;
      Fail(ErrorCode::kDevice,
           fmt::format("element {} of {} on {} is {} (want {}): do not trust this path", i, n,
                       device.name(), got[i], want[i]));
    }
  }

  Backend& backend_;
  Transport& transport_;
  TrafficLedger ledger_;
  std::vector<Buffer> in_, out_, scratch_;
};

// Runs a check and keeps what it throws.
template <typename Check>
PathVerdict Try(PathKind path, std::string what, const Check& check) {
  PathVerdict verdict{.path = path, .what = std::move(what)};
  try {
    check();
    verdict.passed = true;
  } catch (const Error& error) {
    verdict.why = error.what();
  }
  return verdict;
}

}  // namespace

std::vector<PathKind> PathsToTest(const Rig& rig) {
  if (rig.gpus.empty()) return {PathKind::kLocal, PathKind::kHostStaged};
  const bool cpu = std::find(rig.gpus.begin(), rig.gpus.end(), Rig::kNotAGpu) != rig.gpus.end();
  if (cpu) return {PathKind::kCopy};
  return {PathKind::kP2p, PathKind::kCopy, PathKind::kHostStaged, PathKind::kNccl};
}

namespace {

// Every direction of a transport, and sums over all devices. `way` is said behind what was tried.
void TestTransport(Backend& backend, Transport& transport, PathKind path, const std::string& way,
                   std::vector<PathVerdict>& verdicts) {
  const std::string by = way.empty() ? "" : fmt::format(", {}", way);
  for (const auto& from : backend.devices()) {
    for (const auto& to : backend.devices()) {
      if (from == to) continue;
      verdicts.push_back(Try(path,
                             fmt::format("d{} to d{}{}", from->id().value, to->id().value, by),
                             [&] { SelfTestPath(transport, *from, *to); }));
    }
  }
  verdicts.push_back(Try(path, fmt::format("all-reduce over {}{}", backend.devices().size(), by),
                         [&] { SumTest(backend, transport).Run(); }));
}

// Where the path rests on it, the order in which every two devices see each other's stores.
void TestOrders(Backend& backend, PathKind path, std::vector<PathVerdict>& verdicts) {
  for (size_t a = 0; a < backend.devices().size(); ++a) {
    for (size_t b = a + 1; b < backend.devices().size(); ++b) {
      bool tested = true;
      PathVerdict verdict = Try(path, fmt::format("order of stores, d{} and d{}", a, b),
                                [&] { tested = backend.TestOrderOf(path, a, b); });
      if (tested) verdicts.push_back(std::move(verdict));
    }
  }
}

}  // namespace

std::vector<PathVerdict> TestPaths(Backend& backend, std::span<const PathKind> paths) {
  std::vector<PathVerdict> verdicts;
  for (PathKind path : paths) {
    std::vector<std::string> ways = backend.WaysOf(path);
    // First as a run would have it, which chooses.
    ways.insert(ways.begin(), "");
    for (const std::string& way : ways) {
      std::unique_ptr<Transport> transport;
      PathVerdict made = Try(path, kPathCanBeHad, [&] {
        transport = way.empty() ? backend.MakeTransport(path) : backend.MakeTransportBy(path, way);
      });
      if (!made.passed) {
        verdicts.push_back(std::move(made));
        break;
      }
      TestTransport(backend, *transport, path, way, verdicts);
    }
    if (verdicts.back().what != kPathCanBeHad) TestOrders(backend, path, verdicts);
  }
  return verdicts;
}

}  // namespace tandem
