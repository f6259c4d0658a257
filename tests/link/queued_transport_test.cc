// `copy` and `host_staged` over the queues of fake devices: they deliver whatever the order of the
// queues, keep their place in both ends' order, cross both directions in one batch, and book what
// they move.
#include "engine/link/queued_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/device/cpu/cpu_device.h"
#include "engine/link/collectives.h"
#include "engine/link/self_test.h"
#include "engine/link/wire.h"
#include "tests/link/link_fixture.h"
#include "tests/support/fake_machine.h"
#include "tests/support/fake_ops.h"

namespace tandem {
namespace {

using testing::FakeMachine;
using testing::LinkDevices;
using testing::RandomFloats;
using testing::SameBits;

constexpr uint64_t kSeeds = 6;

// Two fake devices and the host, with a transport between them.
struct Pair {
  Pair(uint64_t seed, PathKind path, uint32_t n = 2) : machine(seed), host(n) {
    for (uint32_t d = 0; d < n; ++d) {
      devices.push_back(machine.MakeDevice(DeviceId{static_cast<int32_t>(d)}, Bytes{}));
    }
    transport = MakeQueuedTransport(path, path, devices, *host.host);
  }
  Buffer Room(size_t device, size_t bytes) {
    return devices[device]->Allocate(MemoryUse::kWorkspace, Bytes{bytes}, "test");
  }
  DeviceQueue* queue(size_t device) { return devices[device]->queue(QueueRole::kComm); }
  void FinishAll() {
    for (size_t d = 0; d < devices.size(); ++d) {
      for (size_t role = 0; role < kQueueRoles; ++role) {
        devices[d]->queue(static_cast<QueueRole>(role))->Finish();
      }
    }
  }
  CopyTask Task(size_t from, const Buffer& a, size_t to, const Buffer& b, uint64_t bytes) {
    return CopyTask{.src = devices[from]->id(),
                    .from = a.data(),
                    .dst = devices[to]->id(),
                    .to = b.data(),
                    .row_bytes = bytes,
                    .src_queue = queue(from),
                    .dst_queue = queue(to)};
  }

  FakeMachine machine;
  LinkDevices host;  // for the host's memory and a ledger
  std::vector<std::unique_ptr<Device>> devices;
  std::unique_ptr<Transport> transport;
};

class QueuedTransportTest : public ::testing::TestWithParam<PathKind> {};

TEST_P(QueuedTransportTest, PassesTheSelfTestInEveryOrder) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Pair pair(seed, GetParam());
    EXPECT_NO_THROW(SelfTestPath(*pair.transport, *pair.devices[0], *pair.devices[1]));
    EXPECT_NO_THROW(SelfTestPath(*pair.transport, *pair.devices[1], *pair.devices[0]));
  }
}

// What is asked of the sender before is sent; what overwrites the source after is not. The receiver
// reads its old value before and the new one after.
TEST_P(QueuedTransportTest, KeepsItsPlaceInBothQueues) {
  const uint64_t bytes = kStagingChunk * 2 + 100;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Pair pair(seed, GetParam());
    const Buffer from = pair.Room(0, bytes), to = pair.Room(1, bytes), kept = pair.Room(1, bytes);
    const std::vector<std::byte> old(bytes, std::byte{1}), sent(bytes, std::byte{2}),
        later(bytes, std::byte{3});
    pair.devices[1]->Upload(to.data(), old.data(), bytes);
    pair.queue(0)->Copy({.to = from.data(), .from = sent.data(), .row_bytes = bytes});
    pair.queue(1)->Copy({.to = kept.data(), .from = to.data(), .row_bytes = bytes});
    pair.transport->Copy(pair.Task(0, from, 1, to, bytes), pair.host.ledger);
    pair.queue(0)->Copy({.to = from.data(), .from = later.data(), .row_bytes = bytes});
    std::vector<std::byte> before(bytes), after(bytes);
    pair.queue(1)->Copy({.to = after.data(), .from = to.data(), .row_bytes = bytes});
    pair.queue(1)->Copy({.to = before.data(), .from = kept.data(), .row_bytes = bytes});
    pair.FinishAll();
    EXPECT_TRUE(before == old) << seed;
    EXPECT_TRUE(after == sent) << seed;
  }
}

TEST_P(QueuedTransportTest, SwapsInOneBatch) {
  const uint64_t bytes = kStagingChunk + 4;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Pair pair(seed, GetParam());
    std::vector<std::byte> value[2] = {std::vector<std::byte>(bytes, std::byte{5}),
                                       std::vector<std::byte>(bytes, std::byte{6})};
    const Buffer own[2] = {pair.Room(0, bytes), pair.Room(1, bytes)};
    const Buffer got[2] = {pair.Room(0, bytes), pair.Room(1, bytes)};
    for (size_t d = 0; d < 2; ++d) {
      pair.queue(d)->Copy({.to = own[d].data(), .from = value[d].data(), .row_bytes = bytes});
    }
    const std::vector<CopyTask> tasks{pair.Task(0, own[0], 1, got[1], bytes),
                                      pair.Task(1, own[1], 0, got[0], bytes)};
    pair.transport->CopyAll(tasks, pair.host.ledger);
    pair.FinishAll();
    for (size_t d = 0; d < 2; ++d) {
      std::vector<std::byte> arrived(bytes);
      pair.devices[d]->Download(arrived.data(), got[d].data(), bytes);
      EXPECT_TRUE(arrived == value[1 - d]) << d << " order " << seed;
    }
  }
}

TEST_P(QueuedTransportTest, MovesRowsAndBooksThemWithoutPadding) {
  Pair pair(1, GetParam());
  const Buffer from = pair.Room(0, 64), to = pair.Room(1, 64);
  std::vector<std::byte> sent(64), arrived(64);
  for (size_t i = 0; i < 64; ++i) sent[i] = static_cast<std::byte>(i + 1);
  pair.devices[0]->Upload(from.data(), sent.data(), 64);
  CopyTask task = pair.Task(0, from, 1, to, 4);
  task.rows = 3;
  task.src_stride = 8;
  task.dst_stride = 16;
  task.padding_bytes = 2;
  pair.transport->Copy(task, pair.host.ledger);
  pair.FinishAll();
  pair.devices[1]->Download(arrived.data(), to.data(), 64);
  for (size_t i = 0; i < 64; ++i) {
    const bool in_a_row = i % 16 < 4 && i / 16 < 3;
    const std::byte want = in_a_row ? sent[i / 16 * 8 + i % 16] : std::byte{0};
    EXPECT_EQ(arrived[i], want) << i;
  }
  const size_t hops = GetParam() == PathKind::kHostStaged ? 2 : 1;
  ASSERT_EQ(pair.host.ledger.rows().size(), hops);
  for (const HopRow& row : pair.host.ledger.rows()) EXPECT_EQ(row.bytes, Bytes{10});
}

TEST_P(QueuedTransportTest, NothingIsAskedForNothing) {
  Pair pair(1, GetParam());
  pair.transport->Copy({.src = DeviceId{0}, .dst = DeviceId{1}}, pair.host.ledger);
  EXPECT_TRUE(pair.host.ledger.rows().empty());
  EXPECT_EQ(pair.machine.items_run(), 0u);
}

// The CPU's collectives, to the bit, in every order, over pieces much smaller than the message.
TEST_P(QueuedTransportTest, CarriesCollectivesToTheBit) {
  const uint64_t n = 1000;
  for (WireType wire : {WireType::kF32, WireType::kBf16, WireType::kQ8}) {
    for (Algorithm algorithm : {Algorithm::kOneShot, Algorithm::kTwoShot}) {
      for (uint32_t ranks : {2u, 3u}) {
        const uint64_t scratch = 2 * MinCollectiveScratch(ranks);
        std::vector<std::vector<float>> in, want(ranks, std::vector<float>(n));
        for (uint32_t r = 0; r < ranks; ++r) in.push_back(RandomFloats(n, 7 + r));
        {
          LinkDevices cpu(ranks);
          const auto local = MakeTransport(PathKind::kLocal, PathKind::kLocal, nullptr);
          std::vector<std::vector<std::byte>> rooms(ranks, std::vector<std::byte>(scratch));
          std::vector<CollectiveRank> list;
          for (uint32_t r = 0; r < ranks; ++r) {
            list.push_back({.device = DeviceId{static_cast<int32_t>(r)},
                            .in = in[r].data(),
                            .out = want[r].data(),
                            .scratch = rooms[r].data()});
          }
          AllReduce({local.get(), &cpu.ledger, wire, scratch}, algorithm, list, n);
        }
        for (uint64_t seed = 0; seed < kSeeds; ++seed) {
          Pair pair(seed, GetParam(), ranks);
          std::vector<Buffer> ins, outs, rooms;
          std::vector<CollectiveRank> list;
          for (uint32_t r = 0; r < ranks; ++r) {
            ins.push_back(pair.Room(r, 4 * n));
            outs.push_back(pair.Room(r, 4 * n));
            rooms.push_back(pair.Room(r, scratch));
            pair.devices[r]->Upload(ins[r].data(), reinterpret_cast<std::byte*>(in[r].data()),
                                    4 * n);
            list.push_back({.device = pair.devices[r]->id(),
                            .in = ins[r].as<float>(),
                            .out = outs[r].as<float>(),
                            .scratch = rooms[r].data(),
                            .queue = pair.queue(r),
                            .wire_ops = &testing::FakeWireOps()});
          }
          AllReduce({pair.transport.get(), &pair.host.ledger, wire, scratch}, algorithm, list, n);
          pair.FinishAll();
          for (uint32_t r = 0; r < ranks; ++r) {
            std::vector<float> got(n);
            pair.devices[r]->Download(reinterpret_cast<std::byte*>(got.data()), outs[r].data(),
                                      4 * n);
            EXPECT_TRUE(SameBits(got, want[r]))
                << ToString(wire) << " rank " << r << " of " << ranks << " order " << seed;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Paths, QueuedTransportTest,
                         ::testing::Values(PathKind::kCopy, PathKind::kHostStaged),
                         [](const auto& info) { return std::string(ToString(info.param)); });

TEST(MakeQueuedTransportTest, RefusesWhatTakesMoreThanQueues) {
  Pair pair(0, PathKind::kCopy);
  EXPECT_THROW(MakeQueuedTransport(PathKind::kNccl, PathKind::kNccl, pair.devices, *pair.host.host),
               Error);
}

}  // namespace
}  // namespace tandem
