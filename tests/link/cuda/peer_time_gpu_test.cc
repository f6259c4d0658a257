// What only a GPU can tell of peer links: how long small sums take, and whether a link that is
// played takes as long as its profile says. Skips where there is none.
#include <gtest/gtest.h>

#include <cstdio>

#include "engine/device/cuda/cuda_recorder.h"
#include "engine/link/peer_link.h"
#include "engine/link/peer_probe.h"
#include "tests/support/peer_machine.h"

namespace tandem {
namespace {

using testing::PeerMachine;

// Between two events of device 0, all-reduces of n values asked for at once.
class Series {
 public:
  Series(PeerMachine& machine, PeerLink& link, uint64_t n) : machine_(machine), link_(link), n_(n) {
    ledger_.BeginStep(ProgramKind::kDecode);
    ledger_.BeginOp(0, OpKind::kAllReduce, BlockId{0}, WireType::kF32);
    for (size_t d = 0; d < machine.devices.size(); ++d) {
      in_.push_back(machine.Room(d, 4 * n));
      out_.push_back(machine.Room(d, 4 * n));
      ends_.push_back(
          {machine.devices[d]->id(), in_[d].as<float>(), out_[d].as<float>(), machine.queue(d)});
    }
  }
  void Ask(int rounds) {
    for (int i = 0; i < rounds; ++i) link_.AllReduce(WireType::kF32, ends_, n_, ledger_);
  }
  double NanosEach(int rounds) {
    DeviceQueue& queue = *machine_.queue(0);
    const auto begin = queue.MakeEvent(), end = queue.MakeEvent();
    link_.AllReduce(WireType::kF32, ends_, n_, ledger_);
    queue.Mark(*begin);
    Ask(rounds);
    queue.Mark(*end);
    machine_.FinishAll();
    EXPECT_FALSE(link_.TakeFailure());
    return static_cast<double>(end->Since(*begin).value) / rounds;
  }

 private:
  PeerMachine& machine_;
  PeerLink& link_;
  const uint64_t n_;
  TrafficLedger ledger_;
  std::vector<Buffer> in_, out_;
  std::vector<DirectEnd> ends_;
};

// What a step's graph would make of such a sum. Kernels of one GPU that wait for one another may be
// run one after the other there: so no path between parts of a GPU is recorded, and a short bound
// tells whether this could have been.
constexpr Nanos kShortBound{200'000'000};

class PeerTimeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = testing::NoPeerMachine(); !why.empty()) GTEST_SKIP() << why;
  }
};

TEST_F(PeerTimeTest, SumsOfADecodeRow) {
  PeerMachine machine(2);
  const auto kernels = testing::MakePeerKernels();
  for (PeerPlace place : {PeerPlace::kPush, PeerPlace::kPull, PeerPlace::kHost}) {
    PeerLink link({.words = place, .blocks = place}, machine.devices, *machine.host, *kernels);
    for (uint64_t n : {uint64_t{1024}, uint64_t{4096}, uint64_t{16384}, uint64_t{1} << 20}) {
      std::printf("all-reduce, %s, %7.0f KiB: %8.2f us\n", ToString(place),
                  static_cast<double>(4 * n) / 1024, Series(machine, link, n).NanosEach(200) / 1e3);
    }
  }
}

TEST_F(PeerTimeTest, ASumOfADecodeRowWithinAGraph) {
  PeerMachine machine(2);
  const auto kernels = testing::MakePeerKernels();
  const auto recorder = MakeCudaRecorder(machine.devices);
  PeerLink link({.bound = kShortBound}, machine.devices, *machine.host, *kernels);
  constexpr int kSums = 64, kReplays = 20;
  Series series(machine, link, 4096);
  series.NanosEach(1);  // loaded, and eager it works
  recorder->Begin();
  series.Ask(kSums);
  const std::unique_ptr<Recording> graph = recorder->End();
  const auto begin = machine.queue(0)->MakeEvent(), end = machine.queue(0)->MakeEvent();
  machine.queue(0)->Mark(*begin);
  for (int i = 0; i < kReplays; ++i) graph->Replay();
  machine.queue(0)->Mark(*end);
  machine.FinishAll();
  if (const auto failure = link.TakeFailure()) {
    GTEST_SKIP() << "within a graph its kernels do not run side by side: " << failure->what;
  }
  std::printf("all-reduce within a graph, 16 KiB: %8.2f us\n",
              static_cast<double>(end->Since(*begin).value) / (kSums * kReplays) / 1e3);
}

// What the residual and the norm cost on top, in the sum's kernel and as the kernel after it.
TEST_F(PeerTimeTest, RowsWithWhatFollowsThem) {
  PeerMachine machine(2);
  const auto kernels = testing::MakePeerKernels();
  TrafficLedger ledger;
  ledger.BeginStep(ProgramKind::kDecode);
  ledger.BeginOp(0, OpKind::kAllReduce, BlockId{0}, WireType::kF32);
  for (PeerPlace place : {PeerPlace::kPush, PeerPlace::kPull, PeerPlace::kHost}) {
    PeerLink link({.words = place, .blocks = place}, machine.devices, *machine.host, *kernels);
    for (uint64_t width : {1024u, 4096u, 8192u}) {
      std::vector<Buffer> buffers;
      std::vector<DirectEnd> ends;
      std::vector<DirectRows> outs;
      const auto room = [&](size_t d) {
        buffers.push_back(machine.Room(d, 4 * width));
        return buffers.back().as<float>();
      };
      for (size_t d = 0; d < machine.devices.size(); ++d) {
        ends.push_back({machine.devices[d]->id(), room(d), room(d), machine.queue(d)});
        outs.push_back({room(d), room(d), room(d), room(d)});
      }
      const DirectRowsShape shape{1, width, 1e-5f};
      for (bool fused : {true, false}) {
        const auto ask = [&] {
          if (fused) return link.AllReduceRows(WireType::kF32, ends, outs, shape, ledger);
          link.AllReduce(WireType::kF32, ends, width, ledger);
          for (size_t d = 0; d < ends.size(); ++d) {
            testing::AskAddNorm(d, *machine.queue(d),
                                {.x = outs[d].residual,
                                 .y = ends[d].out,
                                 .w = outs[d].weights,
                                 .eps = shape.eps,
                                 .n = 1,
                                 .width = static_cast<uint32_t>(width),
                                 .sum = outs[d].sum,
                                 .norm = outs[d].norm});
          }
        };
        constexpr int kRounds = 200;
        DeviceQueue& queue = *machine.queue(0);
        const auto begin = queue.MakeEvent(), end = queue.MakeEvent();
        ask();
        queue.Mark(*begin);
        for (int i = 0; i < kRounds; ++i) ask();
        queue.Mark(*end);
        machine.FinishAll();
        ASSERT_FALSE(link.TakeFailure());
        std::printf("a row of %5d, %s, residual and norm %-8s %8.2f us\n", static_cast<int>(width),
                    ToString(place), fused ? "within:" : "after:",
                    static_cast<double>(end->Since(*begin).value) / kRounds / 1e3);
      }
    }
  }
}

TEST_F(PeerTimeTest, APlayedLinkIsWithinATwentiethOfItsProfile) {
  PeerMachine machine(2);
  const auto kernels = testing::MakePeerKernels();
  // A clock that ticks in microseconds shows in the shortest.
  for (int64_t micros : {5, 10, 50, 200}) {
    Rig rig;
    rig.devices.resize(2);
    rig.link.kind = LinkKind::kPcieP2p;
    rig.link.send.points = {{Bytes{0}, Nanos{1000 * micros}},
                            {Bytes{uint64_t{1} << 30}, Nanos{1000 * micros}}};
    PeerLink link({.shape = &rig}, machine.devices, *machine.host, *kernels);
    const double each = Series(machine, link, 4096).NanosEach(100);
    std::printf("a link of %d us: %.2f us\n", static_cast<int>(micros), each / 1e3);
    EXPECT_NEAR(each, 1000.0 * static_cast<double>(micros), 50.0 * static_cast<double>(micros));
  }
}

}  // namespace
}  // namespace tandem
