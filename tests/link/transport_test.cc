// Transports move bytes and book what they moved; the self-test finds a path that lies.
#include "engine/link/transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/link/self_test.h"
#include "tests/link/link_fixture.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;
using testing::LinkDevices;

std::vector<std::byte> Ramp(size_t n) {
  std::vector<std::byte> bytes(n);
  for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
  return bytes;
}

TEST(TransportTest, LocalMovesBytesAndBooksOneHop) {
  LinkDevices link(2);
  auto transport = MakeTransport(PathKind::kLocal, PathKind::kP2p, nullptr);
  EXPECT_EQ(transport->mechanism(), PathKind::kLocal);
  const std::vector<std::byte> from = Ramp(1000);
  std::vector<std::byte> to(1000);
  transport->Copy({.src = DeviceId{0},
                   .from = from.data(),
                   .dst = DeviceId{1},
                   .to = to.data(),
                   .row_bytes = 1000},
                  link.ledger);
  EXPECT_EQ(from, to);
  ASSERT_EQ(link.ledger.rows().size(), 1u);
  const HopRow& row = link.ledger.rows()[0];
  EXPECT_EQ(row.src, DeviceId{0});
  EXPECT_EQ(row.dst, DeviceId{1});
  EXPECT_EQ(row.path, PathKind::kP2p);
  EXPECT_EQ(row.bytes, Bytes{1000});
}

TEST(TransportTest, HostStagedMakesTwoHopsForAnySize) {
  LinkDevices link(2);
  auto transport = MakeTransport(PathKind::kHostStaged, PathKind::kHostStaged, link.host.get());
  for (size_t n : {size_t{1}, size_t{kStagingChunk}, size_t{3 * kStagingChunk + 17}}) {
    const std::vector<std::byte> from = Ramp(n);
    std::vector<std::byte> to(n);
    link.ledger.BeginStep(ProgramKind::kDecode);
    link.ledger.BeginOp(3, OpKind::kTransfer, BlockId{2}, WireType::kF32);
    transport->Copy({.src = DeviceId{0},
                     .from = from.data(),
                     .dst = DeviceId{1},
                     .to = to.data(),
                     .row_bytes = n},
                    link.ledger);
    EXPECT_EQ(from, to);
    ASSERT_EQ(link.ledger.rows().size(), 2u);
    EXPECT_EQ(link.ledger.rows()[0].dst, kHost);
    EXPECT_EQ(link.ledger.rows()[1].src, kHost);
    for (const HopRow& row : link.ledger.rows()) EXPECT_EQ(row.bytes, Bytes{n});
    EXPECT_EQ(link.ledger.BetweenDevices(), Bytes{2 * n});
  }
}

TEST(TransportTest, StridedRowsKeepTheirPlaces) {
  LinkDevices link(2);
  for (PathKind kind : {PathKind::kLocal, PathKind::kHostStaged}) {
    auto transport = MakeTransport(kind, kind, link.host.get());
    const std::vector<std::byte> from = Ramp(64);
    std::vector<std::byte> to(96, std::byte{0xee});
    link.ledger.BeginStep(ProgramKind::kDecode);
    transport->Copy({.src = DeviceId{0},
                     .from = from.data(),
                     .dst = DeviceId{1},
                     .to = to.data(),
                     .row_bytes = 10,
                     .rows = 3,
                     .src_stride = 20,
                     .dst_stride = 30},
                    link.ledger);
    for (size_t i = 0; i < to.size(); ++i) {
      const bool moved = i % 30 < 10 && i / 30 < 3;
      EXPECT_EQ(to[i], moved ? from[i / 30 * 20 + i % 30] : std::byte{0xee}) << i;
    }
    EXPECT_EQ(link.ledger.rows()[0].bytes, Bytes{30});
  }
}

TEST(TransportTest, PaddingIsNotBooked) {
  LinkDevices link(1);
  auto transport = MakeTransport(PathKind::kLocal, PathKind::kLocal, nullptr);
  std::vector<std::byte> a(128), b(128);
  transport->Copy({.src = kHost,
                   .from = a.data(),
                   .dst = DeviceId{0},
                   .to = b.data(),
                   .row_bytes = 128,
                   .padding_bytes = 28},
                  link.ledger);
  EXPECT_EQ(link.ledger.rows()[0].bytes, Bytes{100});
}

TEST(TransportTest, NothingIsBookedForNothing) {
  LinkDevices link(2);
  auto transport = MakeTransport(PathKind::kLocal, PathKind::kLocal, nullptr);
  transport->Copy({.src = DeviceId{0}, .dst = DeviceId{1}}, link.ledger);
  EXPECT_TRUE(link.ledger.rows().empty());
}

TEST(TransportTest, RefusesAPathTheCpuLacks) {
  EXPECT_THROW(MakeTransport(PathKind::kNccl, PathKind::kNccl, nullptr), Error);
}

// Delivers messages but for one byte.
class Corrupting final : public Transport {
 public:
  Corrupting(uint64_t size, uint64_t byte) : size_(size), byte_(byte) {}
  PathKind mechanism() const override { return PathKind::kLocal; }
  PathKind path() const override { return PathKind::kP2p; }
  void Copy(const CopyTask& task, TrafficLedger& ledger) override {
    inner_->Copy(task, ledger);
    if (task.row_bytes == size_) task.to[byte_] ^= std::byte{1};
  }

 private:
  std::unique_ptr<Transport> inner_ = MakeTransport(PathKind::kLocal, PathKind::kLocal, nullptr);
  uint64_t size_, byte_;
};

// Says it copied, and did not.
class Silent final : public Transport {
 public:
  PathKind mechanism() const override { return PathKind::kLocal; }
  PathKind path() const override { return PathKind::kLocal; }
  void Copy(const CopyTask&, TrafficLedger&) override {}
};

TEST(SelfTestTest, PassesAPathThatDelivers) {
  LinkDevices link(2);
  for (PathKind kind : {PathKind::kLocal, PathKind::kHostStaged}) {
    auto transport = MakeTransport(kind, kind, link.host.get());
    EXPECT_NO_THROW(SelfTestPath(*transport, *link.devices[0], *link.devices[1]));
    EXPECT_NO_THROW(SelfTestPath(*transport, *link.devices[1], *link.devices[0]));
  }
  EXPECT_EQ(link.devices[0]->ledger().used(), Bytes{}) << "gives its memory back";
}

TEST(SelfTestTest, NamesPathDirectionAndByteOfAWrongOne) {
  LinkDevices link(2);
  Corrupting transport(4096, 1234);
  try {
    SelfTestPath(transport, *link.devices[1], *link.devices[0]);
    FAIL() << "the corrupted byte went unseen";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDevice);
    EXPECT_THAT(error.what(), HasSubstr("p2p"));
    EXPECT_THAT(error.what(), HasSubstr("byte 1234"));
    EXPECT_THAT(error.what(), HasSubstr("--path"));
  }
}

TEST(SelfTestTest, SeesACopyThatNeverHappened) {
  LinkDevices link(2);
  Silent transport;
  EXPECT_THROW(SelfTestPath(transport, *link.devices[0], *link.devices[1]), Error);
}

TEST(TrafficLedgerTest, SumsByEndsAndPath) {
  TrafficLedger ledger;
  ledger.BeginStep(ProgramKind::kPrefill);
  for (uint32_t op = 0; op < 3; ++op) {
    ledger.BeginOp(op, OpKind::kTransfer, BlockId{op}, WireType::kBf16);
    ledger.Book(DeviceId{0}, DeviceId{1}, PathKind::kP2p, Bytes{10});
    ledger.Book(DeviceId{0}, DeviceId{1}, PathKind::kP2p, Bytes{5});
  }
  ledger.BeginOp(3, OpKind::kSample, BlockId{}, WireType::kF32);
  ledger.Book(DeviceId{1}, kHost, PathKind::kCopy, Bytes{4});
  EXPECT_EQ(ledger.rows().size(), 4u) << "one row a hop of an op";
  std::vector<TrafficRow> sums;
  ledger.SumInto(17, sums);
  ASSERT_EQ(sums.size(), 2u);
  EXPECT_EQ(sums[0].bytes, Bytes{45});
  EXPECT_EQ(sums[0].rows, 17u);
  EXPECT_EQ(ledger.BetweenDevices(), Bytes{45}) << "ids to the host are not between devices";
}

}  // namespace
}  // namespace tandem
