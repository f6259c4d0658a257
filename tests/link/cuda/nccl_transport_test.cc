// The path nccl over an NCCL that is emulated with the rules of the real one
// (tests/support/emulated_gpus/nccl.cc): sums over symmetric windows where they are granted, the
// same bits and bytes without them where they are refused or not asked for.
#include "engine/link/cuda/nccl_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "engine/device/cuda/cuda_device.h"
#include "engine/link/collectives.h"
#include "engine/link/cuda/wire.h"
#include "engine/link/direct_collectives.h"
#include "engine/link/self_test.h"
#include "tests/link/link_fixture.h"
#include "tests/support/emulated_gpus/nccl_counts.h"

namespace tandem {
namespace {

using emulated::NcclCounts;
using testing::LinkDevices;
using testing::RandomFloats;
using testing::SameBits;
using ::testing::StartsWith;

constexpr uint64_t kScratch = uint64_t{1} << 20;
constexpr int kGpus[] = {0, 1};
constexpr uint64_t kLarge = 270'001;  // more than a window holds as f32, but not as q8

// Two emulated GPUs, joined by NCCL.
class Pair {
 public:
  explicit Pair(const char* granted, bool asked = true) {
    setenv("TANDEM_EMULATED_NCCL_WINDOWS", granted, 1);
    for (int gpu : kGpus) {
      devices.push_back(MakeCudaDevice(DeviceId{gpu}, gpu, Bytes{uint64_t{1} << 28}));
      wire_ops.push_back(MakeCudaWireOps(gpu));
    }
    transport = MakeNcclTransport({.gpus = kGpus, .wire_ops = wire_ops, .windows = asked});
    ledger.BeginStep(ProgramKind::kDecode);
    ledger.BeginOp(0, OpKind::kAllReduce, BlockId{1}, WireType::kF32);
  }

  // What each rank gets of a sum, given in the order d1, d0 where `reversed`.
  std::vector<std::vector<float>> Sum(WireType wire, uint64_t n, bool reversed = false) {
    std::vector<Buffer> in, out, scratch;
    std::vector<CollectiveRank> ranks;
    for (size_t d = 0; d < devices.size(); ++d) {
      for (auto [list, bytes] : {std::pair(&in, 4 * n), {&out, 4 * n}, {&scratch, kScratch}}) {
        list->push_back(devices[d]->Allocate(MemoryUse::kWorkspace, Bytes{bytes}, "test"));
      }
      const auto part = Part(n, d);
      devices[d]->Upload(in[d].data(), reinterpret_cast<const std::byte*>(part.data()), 4 * n);
      ranks.push_back({.device = devices[d]->id(),
                       .in = in[d].as<float>(),
                       .out = out[d].as<float>(),
                       .scratch = scratch[d].data(),
                       .queue = devices[d]->queue(QueueRole::kComm),
                       .wire_ops = wire_ops[d].get()});
    }
    if (reversed) std::swap(ranks[0], ranks[1]);
    // Twice, so that what a window held is overwritten.
    for (int round = 0; round < 2; ++round) Reduce(wire, ranks, n, *transport, ledger);
    std::vector<std::vector<float>> got(devices.size(), std::vector<float>(n));
    for (size_t d = 0; d < devices.size(); ++d) {
      devices[d]->queue(QueueRole::kComm)->Finish();
    }
    for (size_t d = 0; d < devices.size(); ++d) {
      devices[d]->Download(reinterpret_cast<std::byte*>(got[d].data()), out[d].data(), 4 * n);
    }
    return got;
  }

  static std::vector<float> Part(uint64_t n, size_t device) {
    return RandomFloats(n, static_cast<uint32_t>(n + device));
  }
  static void Reduce(WireType wire, std::span<const CollectiveRank> ranks, uint64_t n,
                     Transport& transport, TrafficLedger& ledger) {
    AllReduce({.transport = &transport, .ledger = &ledger, .wire = wire, .scratch_bytes = kScratch},
              Algorithm::kOneShot, ranks, n);
  }

  std::vector<std::unique_ptr<Device>> devices;
  std::vector<std::unique_ptr<WireOps>> wire_ops;
  std::unique_ptr<Transport> transport;
  TrafficLedger ledger;
};

// The same on the CPU.
std::vector<float> WantedSum(WireType wire, uint64_t n, bool reversed, TrafficLedger& ledger) {
  LinkDevices cpu(2);
  const auto transport = MakeTransport(PathKind::kLocal, PathKind::kNccl, nullptr);
  std::vector<std::vector<float>> parts{Pair::Part(n, 0), Pair::Part(n, 1)}, outs(2, parts[0]);
  std::vector<std::vector<std::byte>> scratch(2, std::vector<std::byte>(kScratch));
  std::vector<CollectiveRank> ranks;
  for (size_t d : {0u, 1u}) {
    ranks.push_back({.device = DeviceId{static_cast<int32_t>(d)},
                     .in = parts[d].data(),
                     .out = outs[d].data(),
                     .scratch = scratch[d].data()});
  }
  if (reversed) std::swap(ranks[0], ranks[1]);
  for (int round = 0; round < 2; ++round) Pair::Reduce(wire, ranks, n, *transport, ledger);
  return outs[0];
}

void ExpectSums(Pair& pair) {
  TrafficLedger want_ledger;
  want_ledger.BeginStep(ProgramKind::kDecode);
  want_ledger.BeginOp(0, OpKind::kAllReduce, BlockId{1}, WireType::kF32);
  struct Case {
    WireType wire;
    uint64_t n;
    bool reversed = false;
  };
  std::vector<Case> cases{{WireType::kF32, kLarge}, {WireType::kQ8, kLarge}};
  for (WireType wire : {WireType::kF32, WireType::kBf16, WireType::kQ8}) {
    for (uint64_t n : {uint64_t{1}, uint64_t{33}, uint64_t{4096}}) cases.push_back({wire, n});
    cases.push_back({wire, 100, true});
  }
  for (const Case& c : cases) {
    const auto want = WantedSum(c.wire, c.n, c.reversed, want_ledger);
    for (const auto& got : pair.Sum(c.wire, c.n, c.reversed)) {
      ASSERT_TRUE(SameBits(got, want)) << ToString(c.wire) << " " << c.n;
    }
  }
  uint64_t got = 0, want = 0;
  for (const HopRow& row : pair.ledger.rows()) got += row.bytes.value;
  for (const HopRow& row : want_ledger.rows()) want += row.bytes.value;
  EXPECT_EQ(got, want);
}

TEST(NcclTransportTest, SmallSumsAreGatheredInWindows) {
  {
    Pair pair("granted");
    EXPECT_EQ(pair.transport->windows(), "granted");
    EXPECT_FALSE(pair.transport->recordable());
    NcclCounts() = {.allocations = NcclCounts().allocations};
    ExpectSums(pair);
    EXPECT_EQ(NcclCounts().window_gathers, (3 * 4 + 1) * 2u) << "all but the large one, twice";
    EXPECT_EQ(NcclCounts().plain_gathers, 0u);
    EXPECT_GT(NcclCounts().messages, 0u) << "the large one";
    EXPECT_EQ(NcclCounts().allocations, 2u);
    EXPECT_NO_THROW(SelfTestPath(*pair.transport, *pair.devices[0], *pair.devices[1]));
  }
  EXPECT_EQ(NcclCounts().allocations, 0u);
}

TEST(NcclTransportTest, WorksWithoutWindowsWhereThereAreNone) {
  Pair pair("none");
  EXPECT_THAT(pair.transport->windows(), StartsWith("refused (NCCL gives none"));
  EXPECT_EQ(NcclCounts().allocations, 0u);
  NcclCounts() = {};
  ExpectSums(pair);
  EXPECT_EQ(NcclCounts().window_gathers + NcclCounts().plain_gathers, 0u);
}

// A failed call leaves communicators in doubt: others take their place.
TEST(NcclTransportTest, WorksWithoutWindowsWhereRegisteringFails) {
  NcclCounts() = {};
  Pair pair("error");
  EXPECT_THAT(pair.transport->windows(), StartsWith("refused (register: error of"));
  EXPECT_EQ(NcclCounts().allocations, 0u);
  EXPECT_EQ(NcclCounts().communicators, 4u);
  ExpectSums(pair);
}

TEST(NcclTransportTest, AsksForNoneWhereTheyAreOff) {
  NcclCounts() = {};
  Pair pair("granted", false);
  EXPECT_EQ(pair.transport->windows(), "off");
  EXPECT_EQ(pair.transport->detail(), "windows off");
  EXPECT_EQ(pair.transport->direct(), nullptr);
  ExpectSums(pair);
  EXPECT_EQ(NcclCounts().window_gathers, 0u);
}

}  // namespace
}  // namespace tandem
