#include "engine/run/path_test.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "engine/base/error.h"
#include "engine/link/collectives.h"
#include "engine/link/direct_collectives.h"
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

// The same sums with the residual and the norm taken along, beside the device's own norm of them.
class RowsTest {
 public:
  RowsTest(Backend& backend, DirectCollectives& direct, Transport& transport)
      : backend_(backend), direct_(direct), transport_(transport) {
    ledger_.BeginStep(ProgramKind::kDecode);
    ledger_.BeginOp(0, OpKind::kAllReduce, BlockId{0}, WireType::kF32);
    for (const auto& device : backend.devices()) {
      for (auto* buffers : {&in_, &residual_, &weights_, &sum_, &norm_, &want_norm_}) {
        buffers->push_back(device->Allocate(MemoryUse::kWorkspace, Bytes{4 * kMost}, "path test"));
      }
    }
  }

  bool Takes() const {
    return std::all_of(kShapes.begin(), kShapes.end(), [&](const DirectRowsShape& shape) {
      return direct_.TakesRows(WireType::kF32, shape, backend_.devices().size());
    });
  }
  // Throws Error(kDevice) naming the first wrong element.
  void Run() {
    for (const DirectRowsShape& shape : kShapes) {
      for (uint64_t round = 0; round < kRounds; ++round) Rows(shape, round);
    }
  }

 private:
  // Rows of a warp each, and a decode row.
  static constexpr std::array<DirectRowsShape, 2> kShapes{
      {{.rows = 3, .width = 96, .eps = 1e-5f}, {.rows = 1, .width = 4096, .eps = 1e-5f}}};
  static constexpr uint64_t kMost = 4096;

  void Rows(const DirectRowsShape& shape, uint64_t round) {
    const uint64_t n = shape.elems(), count = backend_.devices().size();
    std::vector<float> want(n);
    std::vector<DirectEnd> ends;
    std::vector<DirectRows> outs;
    for (uint64_t r = 0; r < count; ++r) {
      const auto part = Put(in_[r], r, n, r, round);
      for (uint64_t i = 0; i < n; ++i) want[i] = r == 0 ? part[i] : want[i] + part[i];
      Put(weights_[r], r, shape.width, count + 1, round);
      ends.push_back({.device = backend_.devices()[r]->id(),
                      .in = in_[r].as<float>(),
                      .queue = backend_.devices()[r]->queue(QueueRole::kComm)});
      outs.push_back({.residual = residual_[r].as<float>(),
                      .sum = sum_[r].as<float>(),
                      .weights = weights_[r].as<float>(),
                      .norm = norm_[r].as<float>()});
    }
    std::vector<float> residual;
    for (uint64_t r = 0; r < count; ++r) residual = Put(residual_[r], r, n, count, round);
    for (uint64_t i = 0; i < n; ++i) want[i] = residual[i] + want[i];
    direct_.AllReduceRows(WireType::kF32, ends, outs, shape, ledger_);
    for (const DirectEnd& end : ends) end.queue->Finish();
    if (const auto failure = transport_.TakeFailure()) Fail(ErrorCode::kDevice, failure->what);
    for (uint64_t r = 0; r < count; ++r) {
      backend_.ops(r).RmsNorm(sum_[r].as<float>(), weights_[r].as<float>(), shape.eps, shape.rows,
                              shape.width, want_norm_[r].as<float>());
      backend_.devices()[r]->queue(QueueRole::kCompute)->Finish();
      Compare("sum", r, Get(sum_[r], r, n), want);
      Compare("norm", r, Get(norm_[r], r, n), Get(want_norm_[r], r, n));
    }
  }

  std::vector<float> Put(const Buffer& to, uint64_t device, uint64_t n, uint64_t which,
                         uint64_t round) {
    std::vector<float> values(n);
    for (uint64_t i = 0; i < n; ++i) values[i] = Value(i, which, round);
    backend_.devices()[device]->Upload(to.data(), reinterpret_cast<const std::byte*>(values.data()),
                                       n * sizeof(float));
    return values;
  }
  std::vector<float> Get(const Buffer& from, uint64_t device, uint64_t n) {
    std::vector<float> values(n);
    backend_.devices()[device]->Download(reinterpret_cast<std::byte*>(values.data()), from.data(),
                                         n * sizeof(float));
    return values;
  }
  void Compare(const char* what, uint64_t device, const std::vector<float>& got,
               const std::vector<float>& want) {
    for (size_t i = 0; i < want.size(); ++i) {
      if (std::memcmp(&got[i], &want[i], sizeof(float)) == 0) continue;
      Fail(ErrorCode::kDevice,
           fmt::format("element {} of the {} of {} on {} is {} (want {}): run with "
                       "--fuse-collectives off, or do not trust this path",
                       i, what, want.size(), backend_.devices()[device]->name(), got[i], want[i]));
    }
  }

  Backend& backend_;
  DirectCollectives& direct_;
  Transport& transport_;
  TrafficLedger ledger_;
  std::vector<Buffer> in_, residual_, weights_, sum_, norm_, want_norm_;  // by device
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
  const std::string windows =
      transport.windows().empty() ? "" : fmt::format(" (windows {})", transport.windows());
  verdicts.push_back(Try(path,
                         fmt::format("all-reduce over {}{}{}", backend.devices().size(), by,
                                     way.empty() ? windows : ""),
                         [&] { SumTest(backend, transport).Run(); }));
  if (transport.direct() == nullptr) return;
  RowsTest rows(backend, *transport.direct(), transport);
  if (!rows.Takes()) return;
  verdicts.push_back(
      Try(path,
          fmt::format("all-reduce with residual and norm over {}{}", backend.devices().size(), by),
          [&] { rows.Run(); }));
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
