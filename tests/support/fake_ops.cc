#include "tests/support/fake_ops.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "tests/support/fake_machine.h"

namespace tandem::testing {
namespace {

// Sequences with page tables of their own.
struct OwnSequences {
  OwnSequences() = default;
  explicit OwnSequences(std::span<const SequenceRows> sequences)
      : rows(sequences.begin(), sequences.end()) {
    for (const SequenceRows& s : sequences) {
      const uint32_t count = (s.start + s.n_rows + kPageTokens - 1) / kPageTokens;
      pages.emplace_back(s.pages, s.pages + count);
    }
  }
  std::span<const SequenceRows> Bind() {
    for (size_t i = 0; i < rows.size(); ++i) rows[i].pages = pages[i].data();
    return rows;
  }
  std::vector<SequenceRows> rows;
  std::vector<std::vector<int32_t>> pages;
};

// The rows that recorded work reads when it runs: as good as the device's memory.
struct FakeRows final : RecordedRows {
  struct Microbatch {
    std::vector<int32_t> ids;
    OwnSequences sequences;
  };
  uint32_t positions = 0;  // that no sequence is longer than
  std::shared_ptr<std::vector<Microbatch>> tables = std::make_shared<std::vector<Microbatch>>();
};

class FakeOps final : public Ops, private OpsRecorder {
 public:
  FakeOps(Ops& inner, FakeMachine& machine, Device& device)
      : inner_(inner),
        machine_(machine),
        device_(device),
        queue_(*device.queue(QueueRole::kCompute)) {}

  OpsRecorder* recorder() override { return this; }

  std::string name() const override { return "fake/" + inner_.name(); }
  ActivationType activations() const override { return inner_.activations(); }
  uint64_t PackedBytes(DType type, const MatrixSlice& slice) const override {
    return inner_.PackedBytes(type, slice);
  }
  void Pack(const TensorView& tensor, PackedMatrix& out) override { inner_.Pack(tensor, out); }
  uint64_t PreparedBytes(uint64_t n, uint64_t cols) const override {
    return inner_.PreparedBytes(n, cols);
  }
  PreparedRows PrepareRows(const float* x, uint64_t n, uint64_t cols, DType weight_type,
                           Int8Parts parts, std::byte* scratch) override {
    Ask([=, this] { inner_.PrepareRows(x, n, cols, weight_type, parts, scratch); });
    const RowForm form = FormFor(activations(), weight_type);
    return PreparedRows{.f32 = x,
                        .narrow = form == RowForm::kF32 ? nullptr : scratch,
                        .form = form,
                        .parts = form == RowForm::kInt8 ? parts : Int8Parts::kOne,
                        .n = n,
                        .cols = cols};
  }
  void MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) override {
    std::vector<PackedMatrix> weights;
    for (const MatMulTask& task : tasks) weights.push_back(*task.w);
    Ask([this, x, weights = std::move(weights),
         own = std::vector<MatMulTask>(tasks.begin(), tasks.end())]() mutable {
      for (size_t i = 0; i < own.size(); ++i) own[i].w = &weights[i];
      inner_.MatMul(x, own);
    });
  }
  void Embed(const PackedMatrix& table, const MatrixSlice& slice, std::span<const int32_t> ids,
             float* out) override {
    if (recorded_ != nullptr) {
      const size_t at = Find([&](const StepRows& rows) { return rows.ids.data() == ids.data(); });
      Ask([=, this, tables = recorded_->tables] {
        inner_.Embed(table, slice, tables->at(at).ids, out);
      });
      return;
    }
    Ask([=, this, own = std::vector<int32_t>(ids.begin(), ids.end())] {
      inner_.Embed(table, slice, own, out);
    });
  }
  void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
               float* y) override {
    Ask([=, this] { inner_.RmsNorm(x, w, eps, n, hidden, y); });
  }
  void Add(const float* x, const float* y, uint64_t n, float* out) override {
    Ask([=, this] { inner_.Add(x, y, n, out); });
  }
  void AddBias(const float* bias, uint64_t n, uint64_t width, float* y) override {
    Ask([=, this] { inner_.AddBias(bias, n, width, y); });
  }
  void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) override {
    Ask([=, this] { inner_.SwiGlu(gate, up, n, out); });
  }
  void RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads, const RopeParams& rope,
                    std::span<const SequenceRows> sequences, const KvView& kv) override {
    Ask([=, this, own = Rows(sequences),
         frequencies = std::vector<double>(rope.frequencies.begin(), rope.frequencies.end()),
         turn = rope]() mutable {
      turn.frequencies = frequencies;
      inner_.RopeAndStore(q, k, v, q_heads, turn, own(), kv);
    });
  }
  void Attention(const float* q, uint32_t q_heads, uint32_t window,
                 std::span<const SequenceRows> sequences, const KvView& kv, float* out) override {
    GrowTable(sequences);
    Ask([=, this, own = Rows(sequences)] { inner_.Attention(q, q_heads, window, own(), kv, out); });
  }
  uint64_t TopKBytes(uint64_t n, uint32_t width, uint32_t k) const override {
    return inner_.TopKBytes(n, width, k);
  }
  void TopK(const float* x, uint64_t n, uint32_t width, uint32_t k, std::byte* scratch,
            TopEntry* out) override {
    Ask([=, this] { inner_.TopK(x, n, width, k, scratch, out); });
  }
  void Zero(float* x, uint64_t n) override {
    Ask([=, this] { inner_.Zero(x, n); });
  }
  void CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
                uint64_t width, uint64_t rows) override {
    Ask([=, this] { inner_.CopyRows(from, from_stride, to, to_stride, width, rows); });
  }
  void Finish() override { queue_.Finish(); }

 private:
  void Ask(std::function<void()> work) { AskFake(queue_, std::move(work)); }

  void GrowTable(std::span<const SequenceRows> sequences) {
    uint64_t bytes = 0;
    for (const SequenceRows& s : sequences) {
      bytes = std::max(bytes, machine_.table_bytes() * (s.start + s.n_rows));
    }
    if (bytes <= table_.size() || machine_.recording()) return;
    table_ = Buffer();
    table_ = device_.Allocate(MemoryUse::kWorkspace, Bytes{bytes}, "attention's tables");
  }

  // The sequences as they will be when work runs: those of the call, or of the replay.
  std::function<std::span<const SequenceRows>()> Rows(std::span<const SequenceRows> sequences) {
    if (recorded_ == nullptr) {
      return [own = std::make_shared<OwnSequences>(sequences)] { return own->Bind(); };
    }
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

  Ops& inner_;
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
