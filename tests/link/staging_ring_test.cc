// The ring over fake devices: whatever the order of the queues, what arrives is what was sent, in
// order, through chunks that are used again and again; and what it costs is booked.
#include "engine/link/staging_ring.h"

#include <gtest/gtest.h>

#include "tests/link/link_fixture.h"
#include "tests/support/fake_machine.h"

namespace tandem {
namespace {

using testing::FakeMachine;
using testing::LinkDevices;

constexpr uint64_t kSeeds = 6;
constexpr uint64_t kChunk = 1000;

std::vector<std::byte> Pattern(uint64_t bytes, uint32_t seed) {
  std::vector<std::byte> pattern(bytes);
  for (uint64_t i = 0; i < bytes; ++i) {
    pattern[i] = static_cast<std::byte>(i * 7 + i / kChunk + seed * 13);
  }
  return pattern;
}

struct Fetcher {
  explicit Fetcher(uint64_t seed, uint32_t chunks = 2)
      : machine(seed),
        host(1),
        device(machine.MakeDevice(DeviceId{0}, Bytes{})),
        team(1),
        ring(*host.host, *device, team, chunks, kChunk) {}
  CopyTask Task(const std::vector<std::byte>& from, const Buffer& to, uint64_t padding = 0) {
    return CopyTask{.src = kHost,
                    .from = from.data(),
                    .dst = DeviceId{0},
                    .to = to.data(),
                    .row_bytes = from.size(),
                    .padding_bytes = padding,
                    .dst_queue = device->queue(QueueRole::kCopyIn)};
  }
  std::vector<std::byte> Read(const Buffer& buffer) {
    for (size_t role = 0; role < kQueueRoles; ++role) {
      device->queue(static_cast<QueueRole>(role))->Finish();
    }
    std::vector<std::byte> bytes(buffer.size());
    device->Download(bytes.data(), buffer.data(), bytes.size());
    return bytes;
  }

  FakeMachine machine;
  LinkDevices host;
  std::unique_ptr<Device> device;
  CopyTeam team;
  StagingRing ring;
};

TEST(StagingRingTest, DeliversEverySizeInEveryOrder) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    for (uint64_t bytes : {uint64_t{1}, kChunk - 1, kChunk, kChunk + 1, 7 * kChunk + 13}) {
      Fetcher f(seed, 2 + static_cast<uint32_t>(seed % 3));
      const std::vector<std::byte> sent = Pattern(bytes, 1);
      const Buffer to = f.device->Allocate(MemoryUse::kSlots, Bytes{bytes}, "test");
      f.ring.Copy(f.Task(sent, to), PathKind::kCopy, f.host.ledger);
      EXPECT_EQ(f.Read(to), sent) << bytes << " bytes, order " << seed;
    }
  }
}

// The second copy into a slot comes after what read the first, though its bytes are in the ring
// before.
TEST(StagingRingTest, KeepsItsPlaceInTheQueue) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Fetcher f(seed);
    const uint64_t bytes = 3 * kChunk + 5;
    const std::vector<std::byte> first = Pattern(bytes, 2), second = Pattern(bytes, 3);
    const Buffer slot = f.device->Allocate(MemoryUse::kSlots, Bytes{bytes}, "test");
    const Buffer kept = f.device->Allocate(MemoryUse::kSlots, Bytes{bytes}, "test");
    DeviceQueue& compute = *f.device->queue(QueueRole::kCompute);
    DeviceQueue& copy = *f.device->queue(QueueRole::kCopyIn);
    const auto arrived = copy.MakeEvent();
    const auto read = compute.MakeEvent();
    f.ring.Copy(f.Task(first, slot), PathKind::kCopy, f.host.ledger);
    copy.Mark(*arrived);
    compute.WaitFor(*arrived);
    compute.Copy({.to = kept.data(), .from = slot.data(), .row_bytes = bytes});
    compute.Mark(*read);
    copy.WaitFor(*read);
    f.ring.Copy(f.Task(second, slot), PathKind::kCopy, f.host.ledger);
    EXPECT_EQ(f.Read(slot), second) << seed;
    EXPECT_EQ(f.Read(kept), first) << seed;
  }
}

TEST(StagingRingTest, BooksTheLinkAndTheHostsOwnPassWithoutPadding) {
  Fetcher f(0);
  const std::vector<std::byte> sent = Pattern(2500, 4);
  const Buffer to = f.device->Allocate(MemoryUse::kSlots, Bytes{2500}, "test");
  f.ring.Copy(f.Task(sent, to, 500), PathKind::kCopy, f.host.ledger);
  std::vector<TrafficRow> rows;
  f.host.ledger.SumInto(1, rows);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].src, kHost);
  EXPECT_EQ(rows[0].dst, kHost);
  EXPECT_EQ(rows[0].path, PathKind::kLocal);
  EXPECT_EQ(rows[1].src, kHost);
  EXPECT_EQ(rows[1].dst, DeviceId{0});
  EXPECT_EQ(rows[1].path, PathKind::kCopy);
  for (const TrafficRow& row : rows) EXPECT_EQ(row.bytes, Bytes{2000});
  EXPECT_EQ(f.host.ledger.BetweenDevices(), Bytes{}) << "a link between devices is not involved";
}

TEST(CopyTeamTest, SeveralThreadsCopyEveryByteOnce) {
  CopyTeam team(3);
  for (uint64_t bytes : {uint64_t{0}, uint64_t{1}, uint64_t{300000}, (uint64_t{1} << 20) + 17}) {
    const std::vector<std::byte> from = Pattern(bytes, 5);
    std::vector<std::byte> to(bytes + 1, std::byte{0xee});
    team.Copy(to.data(), from.data(), bytes);
    EXPECT_EQ(to.back(), std::byte{0xee});
    to.pop_back();
    EXPECT_EQ(to, from) << bytes;
  }
}

}  // namespace
}  // namespace tandem
