// The path nccl over an NCCL that is emulated with the rules of the real one
// (tests/support/emulated_gpus/nccl.cc): sums over symmetric windows where they are granted, the
// same bits and bytes without them where they are refused or not asked for.
#include "engine/link/cuda/nccl_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "engine/base/error.h"
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
using emulated::NcclFaults;
using ::testing::HasSubstr;
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
  explicit Pair(const char* granted, bool asked = true, Nanos bound = NcclSetup{}.bound) {
    NcclFaults() = {};
    setenv("TANDEM_EMULATED_NCCL_WINDOWS", granted, 1);
    for (int gpu : kGpus) {
      devices.push_back(MakeCudaDevice(DeviceId{gpu}, gpu, Bytes{uint64_t{1} << 28}));
      wire_ops.push_back(MakeCudaWireOps(gpu));
    }
    transport =
        MakeNcclTransport({.gpus = kGpus, .wire_ops = wire_ops, .windows = asked, .bound = bound});
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
  pair.ledger.BeginStep(ProgramKind::kDecode);
  pair.ledger.BeginOp(0, OpKind::kAllReduce, BlockId{1}, WireType::kF32);
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

std::string MessageOf(const auto& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A group that is left open would swallow every later one and say that all is well.
TEST(NcclTransportTest, ACallThatFailsFailsTheStepAndTheNextIsWhole) {
  Pair pair("none");
  ExpectSums(pair);
  NcclFaults().failing_sends = 1;
  EXPECT_THAT(MessageOf([&] { pair.Sum(WireType::kF32, 100); }), HasSubstr("path nccl: send: "));
  // The step goes on where nobody looks: nothing of it is carried out.
  EXPECT_THAT(MessageOf([&] { pair.Sum(WireType::kF32, 100); }), HasSubstr("path nccl: send: "));
  EXPECT_FALSE(pair.transport->TakeFailure()) << "it was thrown";
  ExpectSums(pair);
}

TEST(NcclTransportTest, AGatherThatFailsFailsTheStepAndTheNextIsWhole) {
  {
    Pair pair("granted");
    NcclFaults().failing_gathers = 1;
    EXPECT_THAT(MessageOf([&] { pair.Sum(WireType::kF32, 100); }), HasSubstr("nccl: gather: "));
    EXPECT_FALSE(pair.transport->TakeFailure());
    NcclCounts() = {.allocations = NcclCounts().allocations};
    EXPECT_EQ(pair.Sum(WireType::kF32, 100)[0], WantedSum(WireType::kF32, 100, false, pair.ledger));
    EXPECT_EQ(NcclCounts().window_gathers, 0u) << "windows went with their communicators";
  }
  EXPECT_EQ(NcclCounts().allocations, 0u);
}

TEST(NcclTransportTest, APeerThatNeverComesEndsWithinTheBoundAndNamesTheOp) {
  for (const char* windows : {"none", "granted"}) {
    Pair pair(windows, true, Nanos{200'000'000});
    pair.ledger.BeginOp(7, OpKind::kAllReduce, BlockId{1}, WireType::kF32);
    NcclFaults().hanging = 1;
    pair.Sum(WireType::kF32, 100);  // whatever it is
    const auto failure = pair.transport->TakeFailure();
    ASSERT_TRUE(failure) << windows;
    EXPECT_EQ(failure->op, 7u);
    EXPECT_THAT(failure->what, HasSubstr("waited 0.2 s for its peer"));
    EXPECT_FALSE(pair.transport->TakeFailure()) << "told once";
    TrafficLedger ledger;
    ledger.BeginStep(ProgramKind::kDecode);
    EXPECT_EQ(pair.Sum(WireType::kF32, 100)[1], WantedSum(WireType::kF32, 100, false, ledger));
    EXPECT_FALSE(pair.transport->TakeFailure());
  }
}

TEST(NcclTransportTest, AnErrorThatNcclMeetsByItselfIsTold) {
  Pair pair("none");
  NcclFaults() = {.hanging = 1, .async_error = true};
  pair.Sum(WireType::kF32, 100);
  const auto failure = pair.transport->TakeFailure();
  NcclFaults() = {};
  ASSERT_TRUE(failure);
  EXPECT_THAT(failure->what, HasSubstr("error of the emulated NCCL"));
}

// Time that a device spends before it comes to a group is no waiting.
TEST(NcclTransportTest, QueuesThatAreBusyAreNoFailure) {
  Pair pair("none", true, Nanos{100'000'000});
  for (const auto& device : pair.devices) {
    device->queue(QueueRole::kComm)->Call([] {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
    });
  }
  pair.Sum(WireType::kF32, 100);
  EXPECT_FALSE(pair.transport->TakeFailure());
}

}  // namespace
}  // namespace tandem
