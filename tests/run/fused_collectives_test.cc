// All-reduces that take the ADD and NORM behind them along, on devices that work on their own time:
// which do, the bits and hops of the ops apart whatever order the queues are run in, recorded and
// not, and the times that each op is told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/link/collectives.h"
#include "engine/link/direct_collectives.h"
#include "tests/run/engine_fixture.h"
#include "tests/support/fake_machine.h"
#include "tests/support/fake_ops.h"

namespace tandem {
namespace {

using testing::FakeMachine;
using testing::MakeRequest;
using testing::Prompt;
using testing::Recorder;
using testing::RunAll;
using testing::SameBits;

struct Calls {
  uint64_t fused = 0, plain = 0, norms = 0;
};

struct Setting {
  uint64_t most_rows = 1000;
  bool recordable = true;
  bool wrong = false;  // an element of every sum
};

// What a direct transport does, made of the copies that it stands for: all of it in the queues of
// the ends, on memory that nobody else reaches.
class DirectByCopies final : public Transport, private DirectCollectives {
 public:
  DirectByCopies(std::unique_ptr<Transport> inner, Backend*& backend, Ops& cpu, Calls& calls,
                 const Setting& setting)
      : inner_(std::move(inner)), backend_(backend), cpu_(cpu), calls_(calls), setting_(setting) {}

  PathKind mechanism() const override { return inner_->mechanism(); }
  PathKind path() const override { return inner_->path(); }
  bool recordable() const override { return setting_.recordable; }
  DirectCollectives* direct() override { return this; }
  void Copy(const CopyTask& task, TrafficLedger& ledger) override { inner_->Copy(task, ledger); }
  void CopyAll(std::span<const CopyTask> tasks, TrafficLedger& ledger) override {
    inner_->CopyAll(tasks, ledger);
  }

 private:
  static constexpr uint64_t kRoom = uint64_t{1} << 18;

  bool TakesAllReduce(WireType, uint64_t, size_t) const override { return true; }
  void AllReduce(WireType wire, std::span<const DirectEnd> ends, uint64_t n,
                 TrafficLedger& ledger) override {
    ++calls_.plain;
    std::vector<float*> outs;
    for (const DirectEnd& end : ends) outs.push_back(end.out);
    Reduce(wire, ends, outs, n, ledger);
  }
  bool TakesRows(WireType, const DirectRowsShape& shape, size_t) const override {
    return shape.rows <= setting_.most_rows;
  }
  void AllReduceRows(WireType wire, std::span<const DirectEnd> ends,
                     std::span<const DirectRows> outs, const DirectRowsShape& shape,
                     TrafficLedger& ledger) override {
    ++calls_.fused;
    MakeRoom();
    std::vector<float*> reduced;
    for (const DirectEnd& end : ends) reduced.push_back(reduced_[Index(end)].as<float>());
    Reduce(wire, ends, reduced, shape.elems(), ledger);
    for (size_t r = 0; r < ends.size(); ++r) {
      const DirectRows out = outs[r];
      for (const float* made : {out.sum, out.norm}) {
        for (const float* read : {ends[r].in, out.residual}) {
          if (made != nullptr && made != read) {
            EXPECT_GE(std::abs(made - read), static_cast<int64_t>(shape.elems())) << "rows shifted";
          }
        }
      }
      calls_.norms += out.weights != nullptr ? 1 : 0;
      const float* sum = reduced[r];
      testing::AskFake(*ends[r].queue, [this, out, sum, shape] {
        if (out.weights == nullptr) return cpu_.Add(out.residual, sum, shape.elems(), out.sum);
        cpu_.AddNorm(out.residual, sum, out.weights, shape.eps, shape.rows, shape.width, out.sum,
                     out.norm);
      });
    }
  }
  bool TakesSend(WireType, uint64_t) const override { return false; }
  void Send(WireType, const DirectEnd&, const DirectEnd&, uint64_t, TrafficLedger&) override {
    Check(false, "a send that was not taken");
  }

  static size_t Index(const DirectEnd& end) { return static_cast<size_t>(end.device.value); }
  void MakeRoom() {
    if (!scratch_.empty()) return;
    for (const auto& device : backend_->devices()) {
      for (auto* room : {&scratch_, &reduced_}) {
        room->push_back(device->Allocate(MemoryUse::kWorkspace, Bytes{kRoom}, "test"));
      }
    }
  }
  void Reduce(WireType wire, std::span<const DirectEnd> ends, std::span<float* const> outs,
              uint64_t n, TrafficLedger& ledger) {
    MakeRoom();
    std::vector<CollectiveRank> ranks;
    for (size_t r = 0; r < ends.size(); ++r) {
      ranks.push_back(CollectiveRank{.device = ends[r].device,
                                     .in = ends[r].in,
                                     .out = outs[r],
                                     .scratch = scratch_[Index(ends[r])].data(),
                                     .queue = ends[r].queue,
                                     .wire_ops = &testing::FakeWireOps()});
    }
    tandem::AllReduce(
        CollectiveContext{
            .transport = inner_.get(), .ledger = &ledger, .wire = wire, .scratch_bytes = kRoom},
        Algorithm::kOneShot, ranks, n);
    if (setting_.wrong) testing::AskFake(*ends[1].queue, [out = outs[1], n] { out[n / 2] += 1; });
  }

  const std::unique_ptr<Transport> inner_;
  Backend*& backend_;
  Ops& cpu_;
  Calls& calls_;
  const Setting setting_;
  std::vector<Buffer> scratch_, reduced_;
};

// An engine on fake devices whose links have direct collectives.
struct Bench {
  Bench(uint64_t seed, EngineOptions given, const Setting& setting = {})
      : machine(seed), options(std::move(given)) {
    options.hooks.make_backend = [this](const BackendSetup& setup) {
      cpu = MakeCpuBackend(setup);
      auto made = machine.MakeBackend(setup);
      backend = made.get();
      return made;
    };
    options.hooks.wrap_transport = [this, setting](std::unique_ptr<Transport> inner) {
      return std::make_unique<DirectByCopies>(std::move(inner), backend, cpu->ops(0), calls,
                                              setting);
    };
  }

  // Three requests of different lengths to the end.
  void Run() {
    engine = Engine::Create(options);
    calls = {};  // without those of the check at the start
    engine->AddObserver(&log);
    for (int32_t i = 0; i < 3; ++i) {
      recorders.push_back(std::make_shared<Recorder>());
      engine->Submit(MakeRequest(Prompt(i == 0 ? 41 : 9, i), 6, i == 0), recorders.back());
    }
    RunAll(*engine);
    for (const auto& recorder : recorders) {
      EXPECT_EQ(recorder->reason, FinishReason::kLength) << recorder->error;
    }
  }

  FakeMachine machine;
  EngineOptions options;
  Calls calls;
  std::unique_ptr<Backend> cpu;
  Backend* backend = nullptr;
  testing::StepLog log;
  std::vector<std::shared_ptr<Recorder>> recorders;
  std::unique_ptr<Engine> engine;
};

void ExpectSame(const Bench& got, const Bench& want) {
  for (size_t i = 0; i < want.recorders.size(); ++i) {
    EXPECT_EQ(got.recorders[i]->ids, want.recorders[i]->ids);
    EXPECT_TRUE(SameBits(got.recorders[i]->prompt_logits, want.recorders[i]->prompt_logits));
  }
  ASSERT_EQ(got.log.hops.size(), want.log.hops.size());
  for (size_t s = 0; s < got.log.hops.size(); ++s) {
    ASSERT_EQ(got.log.hops[s].size(), want.log.hops[s].size()) << "step " << s;
    for (size_t i = 0; i < got.log.hops[s].size(); ++i) {
      const HopRow &a = got.log.hops[s][i], &b = want.log.hops[s][i];
      EXPECT_TRUE(a.op == b.op && a.kind == b.kind && a.block == b.block && a.src == b.src &&
                  a.dst == b.dst && a.path == b.path && a.wire == b.wire && a.bytes == b.bytes)
          << "step " << s << " row " << i;
    }
  }
}

EngineOptions Tensor(uint32_t devices, WireType wire = WireType::kF32) {
  const auto model = testing::TinyModel();
  EngineOptions options = testing::TinyOptions(
      model, testing::TensorSplitPlan(model->blocks(), std::vector<double>(devices, 1.0)));
  options.wire = wire;
  options.plan->wire = wire;
  return options;
}

// The same split in two microbatches: between a sum's partials and the sum itself the devices
// compute the other microbatch's partials, and read what the sum's ADD and NORM may be laid over.
Plan InterleavedPlan(const BlockGraph& graph) {
  using Value = testing::PlanWriter::Value;
  testing::PlanWriter w(graph, "interleaved", 2);
  const auto part = [&](uint32_t b, uint32_t d) {
    return testing::CutByShares(graph.blocks[b].units, {1, 1})[d];
  };
  for (uint32_t b = 0; b < graph.size(); ++b) {
    for (uint32_t d : {0u, 1u}) w.Place(b, part(b, d), DeviceId{static_cast<int32_t>(d)});
  }
  for (ProgramKind kind : {ProgramKind::kPrefill, ProgramKind::kDecode}) {
    const bool prefill = kind == ProgramKind::kPrefill;
    w.Begin(kind, 0, 2, prefill ? MicrobatchKind::kByChunk : MicrobatchKind::kBySequence);
    std::vector<Value> x[2];
    for (uint32_t m : {0u, 1u}) {
      x[m] =
          w.AllReduce({w.Embed(part(0, 0), 0, m), w.Embed(part(0, 1), 1, m)}, Algorithm::kOneShot);
    }
    for (uint32_t b = 1; b < graph.size(); ++b) {
      std::vector<Value> parts[2];
      for (uint32_t m : {0u, 1u}) {
        for (uint32_t d : {0u, 1u}) parts[m].push_back(w.Run(b, part(b, d), w.Norm(b, x[m][d])));
      }
      for (uint32_t m : {0u, 1u}) {
        if (b == w.head()) {
          w.Sample(w.AllGather(parts[m])[0]);
          continue;
        }
        const std::vector<Value> y = w.AllReduce(parts[m], Algorithm::kOneShot);
        for (uint32_t d : {0u, 1u}) x[m][d] = w.Add(b, x[m][d], y[d]);
      }
    }
  }
  return w.Take();
}

TEST(FusedCollectivesTest, WaitForWhatTheOpsThatTheyTakeAlongWaitFor) {
  const auto model = testing::TinyModel();
  for (uint64_t seed = 0; seed < 8; ++seed) {
    EngineOptions options = testing::TinyOptions(model, InterleavedPlan(model->blocks()));
    options.gpu.graphs = seed % 2 == 0 ? GraphUse::kAuto : GraphUse::kOff;
    Bench fused(seed, options);
    fused.Run();
    options.gpu.fuse_collectives = false;
    Bench apart(seed, options);
    apart.Run();
    EXPECT_GT(fused.calls.fused, 0u);
    EXPECT_EQ(fused.calls.norms, 0u) << "the next op of a device is the other microbatch's";
    ExpectSame(fused, apart);
  }
}

TEST(FusedCollectivesTest, GiveTheBitsAndHopsOfTheOpsApart) {
  for (uint32_t devices : {2u, 3u}) {
    for (WireType wire : {WireType::kF32, WireType::kQ8}) {
      for (GraphUse graphs : {GraphUse::kAuto, GraphUse::kOff}) {
        for (uint64_t seed = 0; seed < 2; ++seed) {
          SCOPED_TRACE(std::to_string(devices) + " devices, " + ToString(wire) + ", graphs " +
                       ToString(graphs) + ", order " + std::to_string(seed));
          EngineOptions options = Tensor(devices, wire);
          options.gpu.graphs = graphs;
          Bench fused(seed, options);
          fused.Run();
          options.gpu.fuse_collectives = false;
          Bench apart(seed, options);
          apart.Run();
          EXPECT_TRUE(fused.engine->info().fused_collectives);
          EXPECT_FALSE(apart.engine->info().fused_collectives);
          EXPECT_GT(fused.calls.fused, 0u);
          EXPECT_EQ(apart.calls.fused, 0u);
          ExpectSame(fused, apart);
        }
      }
    }
  }
}

// Two layers: the embedding's sum has no ADD, and HEAD's norm is of other rows.
TEST(FusedCollectivesTest, EverySumThatAnAddAloneWantsIsTaken) {
  EngineOptions options = Tensor(2);
  options.gpu.graphs = GraphUse::kOff;
  Bench bench(1, options);
  bench.Run();
  const size_t steps = bench.log.steps.size();
  EXPECT_EQ(bench.calls.fused, 4 * steps);
  EXPECT_EQ(bench.calls.norms, 2 * 3 * steps) << "by rank";
  EXPECT_EQ(bench.calls.plain, steps);
}

TEST(FusedCollectivesTest, MessagesThatTheTransportLeavesGoApart) {
  EngineOptions options = Tensor(2);
  Bench some(2, options, {.most_rows = 3}), none(2, options, {.most_rows = 0});
  some.Run();
  none.Run();
  EXPECT_GT(some.calls.fused, 0u);
  EXPECT_GT(some.calls.plain, some.log.steps.size()) << "the prompt's";
  EXPECT_EQ(none.calls.fused, 0u);
  EXPECT_FALSE(none.engine->info().fused_collectives);
  ExpectSame(some, none);
}

// Where kernels that wait for one another are not recorded, a step is cut at them: what they take
// along is then asked for outside of the recording.
TEST(FusedCollectivesTest, BetweenRecordedPartsOfAStep) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    EngineOptions options = Tensor(2);
    Bench fused(seed, options, {.recordable = false});
    fused.Run();
    options.gpu.fuse_collectives = false;
    options.gpu.graphs = GraphUse::kOff;
    Bench apart(seed, options);
    apart.Run();
    EXPECT_GT(fused.machine.replays(), 0u);
    ExpectSame(fused, apart);
  }
}

// Sums of which none, or some, are followed by ADDs.
TEST(FusedCollectivesTest, OtherPlansGiveTheSameBits) {
  const auto model = testing::TinyModel();
  const BlockGraph& graph = model->blocks();
  for (Plan plan :
       {testing::ReplicatedAttentionPlan(graph, 2, 2), testing::SequenceParallelPlan(graph, {1, 1}),
        testing::WeightGatherPlan(graph, 2), testing::LayerSplitPlan(graph, 2, 3)}) {
    for (uint64_t seed = 0; seed < 2; ++seed) {
      EngineOptions options = testing::TinyOptions(model, plan);
      Bench fused(seed, options);
      fused.Run();
      options.gpu.fuse_collectives = false;
      Bench apart(seed, options);
      apart.Run();
      ExpectSame(fused, apart);
    }
  }
}

TEST(FusedCollectivesTest, ATransportWhoseSumsAreWrongIsRefused) {
  Bench bench(1, Tensor(2), {.wrong = true});
  try {
    bench.Run();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDevice);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("element 2048 of a sum of 4096"));
  }
}

TEST(FusedCollectivesTest, EveryOpKeepsATimeInOrder) {
  EngineOptions options = Tensor(2);
  // A roof that the fake devices' items of a microsecond stand out against.
  for (DeviceSpec& device : options.rig.devices) device.memory_bytes_per_s = 10e9;
  options.gpu.graphs = GraphUse::kOff;
  const Plan plan = *options.plan;
  Bench bench(3, options);
  bench.Run();
  const StepReport& step = bench.log.steps.back();
  const Program& program = plan.program(ProgramKind::kDecode, 0);
  int sums = 0;
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    if (op.kind != OpKind::kAdd) continue;
    ++sums;
    EXPECT_GT(step.op_times_raw[i].value, 0) << i;
    // Three values of 96 floats an ADD at 10 GB/s: 115 ns a row, not the link's microseconds.
    EXPECT_LE(step.op_times_raw[i].value, 115 * step.shape.rows() + 1) << i;
  }
  EXPECT_EQ(sums, 8);
}

}  // namespace
}  // namespace tandem
