#include "tests/support/fake_ops.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "kernels/queued_ops.h"
#include "tests/support/fake_machine.h"

namespace tandem::testing {
namespace {

// The rows that recorded work reads when it runs: as good as the device's memory.
struct FakeRows final : RecordedRows {
  struct Microbatch {
    std::vector<int32_t> ids;
    OwnSequences sequences;
  };
  uint32_t positions = 0;  // that no sequence is longer than
  std::shared_ptr<std::vector<Microbatch>> tables = std::make_shared<std::vector<Microbatch>>();
};

class FakeOps final : public QueuedOps, private OpsRecorder {
 public:
  FakeOps(Ops& inner, FakeMachine& machine, Device& device)
      : QueuedOps(inner),
        machine_(machine),
        device_(device),
        queue_(*device.queue(QueueRole::kCompute)) {}

  OpsRecorder* recorder() override { return this; }
  std::string name() const override { return "fake/" + QueuedOps::name(); }
  void Attention(const float* q, uint32_t q_heads, uint32_t window,
                 std::span<const SequenceRows> sequences, const KvView& kv, float* out) override {
    GrowTable(sequences);
    QueuedOps::Attention(q, q_heads, window, sequences, kv, out);
  }
  void Finish() override { queue_.Finish(); }

 private:
  void Ask(std::function<void()> work) override { AskFake(queue_, std::move(work)); }

  void GrowTable(std::span<const SequenceRows> sequences) {
    uint64_t bytes = 0;
    for (const SequenceRows& s : sequences) {
      bytes = std::max(bytes, machine_.table_bytes() * (s.start + s.n_rows));
    }
    if (bytes <= table_.size() || machine_.recording()) return;
    table_ = Buffer();
    table_ = device_.Allocate(MemoryUse::kWorkspace, Bytes{bytes}, "attention's tables");
  }

  // Those of the call, or of the replay.
  std::function<std::span<const int32_t>()> IdsThen(std::span<const int32_t> ids) override {
    if (recorded_ == nullptr) return QueuedOps::IdsThen(ids);
    const size_t at = Find([&](const StepRows& rows) { return rows.ids.data() == ids.data(); });
    return
        [tables = recorded_->tables, at] { return std::span<const int32_t>(tables->at(at).ids); };
  }
  std::function<std::span<const SequenceRows>()> SequencesThen(
      std::span<const SequenceRows> sequences) override {
    if (recorded_ == nullptr) return QueuedOps::SequencesThen(sequences);
    const size_t at =
        Find([&](const StepRows& rows) { return rows.sequences.data() == sequences.data(); });
    return [tables = recorded_->tables, at] { return tables->at(at).sequences.Bind(); };
  }
  template <typename Same>
  size_t Find(Same same) const {
    const auto found = std::find_if(known_.begin(), known_.end(), same);
    Check(found != known_.end(), "fake ops: rows that the recording does not know");
    return static_cast<size_t>(found - known_.begin());
  }

  void Begin(std::span<const StepRows> rows, uint32_t positions) override {
    known_.assign(rows.begin(), rows.end());
    recorded_ = std::make_unique<FakeRows>();
    recorded_->tables->resize(rows.size());
    recorded_->positions = positions;
  }
  std::unique_ptr<RecordedRows> End() override { return std::move(recorded_); }
  // In the queue, as a copy to a device is.
  void Fill(RecordedRows& recorded, std::span<const StepRows> rows) override {
    std::vector<FakeRows::Microbatch> filled;
    for (const StepRows& own : rows) {
      for (const SequenceRows& sequence : own.sequences) {
        Check(sequence.start + sequence.n_rows <= static_cast<FakeRows&>(recorded).positions,
              "fake ops: a sequence longer than the recording was made for");
      }
      filled.push_back({{own.ids.begin(), own.ids.end()}, OwnSequences(own.sequences)});
    }
    Ask([tables = static_cast<FakeRows&>(recorded).tables, filled = std::move(filled)] {
      *tables = filled;
    });
  }

  FakeMachine& machine_;
  Device& device_;
  DeviceQueue& queue_;
  Buffer table_;
  std::unique_ptr<FakeRows> recorded_;  // while recording
  std::vector<StepRows> known_;
};

class FakeWire final : public WireOps {
 public:
  void Encode(DeviceQueue* queue, WireType wire, const float* x, uint64_t n,
              std::byte* out) override {
    AskFake(*queue, [=] { HostWireOps().Encode(nullptr, wire, x, n, out); });
  }
  void Decode(DeviceQueue* queue, WireType wire, const std::byte* in, uint64_t n,
              float* y) override {
    AskFake(*queue, [=] { HostWireOps().Decode(nullptr, wire, in, n, y); });
  }
  void DecodeAdd(DeviceQueue* queue, WireType wire, const std::byte* in, uint64_t n,
                 float* y) override {
    AskFake(*queue, [=] { HostWireOps().DecodeAdd(nullptr, wire, in, n, y); });
  }
  void Round(DeviceQueue* queue, WireType wire, const float* x, uint64_t n, float* y) override {
    AskFake(*queue, [=] { HostWireOps().Round(nullptr, wire, x, n, y); });
  }
  void CopyRows(DeviceQueue* queue, const float* from, uint64_t from_stride, float* to,
                uint64_t to_stride, uint64_t width, uint64_t rows) override {
    AskFake(*queue, [=] {
      HostWireOps().CopyRows(nullptr, from, from_stride, to, to_stride, width, rows);
    });
  }
};

}  // namespace

std::unique_ptr<Ops> MakeFakeOps(Ops& inner, FakeMachine& machine, Device& device) {
  return std::make_unique<FakeOps>(inner, machine, device);
}

WireOps& FakeWireOps() {
  static FakeWire wire;
  return wire;
}

}  // namespace tandem::testing
