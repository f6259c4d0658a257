#include "kernels/cuda/cuda_ops.h"

#include <fmt/format.h>

#include <vector>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/step_recorder.h"
#include "kernels/cuda/step_tables.h"
#include "kernels/cuda/top_k.h"
#include "kernels/validate.h"

namespace tandem {
namespace cuda {
namespace {

constexpr size_t kRingHalfBytes = 1 << 20;
constexpr uint64_t kMostPartialBytes = uint64_t{32} << 20;
constexpr int kLeastOverlap = 90;  // code for sm_90: programmatic dependent launch
constexpr int kLeastCompute = 80;  // sm_80: int8 and BF16 tensor cores, asynchronous copies

uint64_t DivideUp(uint64_t n, uint64_t by) { return (n + by - 1) / by; }

bool IsAligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

class CudaOps final : public Ops {
 public:
  CudaOps(const CudaOpsOptions& options, const GpuFacts& facts, const KernelCode& code)
      : options_(options),
        facts_(facts),
        name_(code.name),
        early_(options.overlap_kernels && code.compute >= kLeastOverlap),
        ring_(kRingHalfBytes, options.stream),
        ids_(*options.memory, options.stream, ring_, "ids of a step"),
        places_(*options.memory, options.stream, ring_, "rows of a step"),
        frequencies_(*options.memory, options.stream, ring_, "rotary frequencies"),
        tiles_(*options.memory, options.stream, ring_, "attention tiles"),
        wide_(*options.memory, options.stream, ring_, "attention tiles of prompts"),
        joins_(*options.memory, options.stream, ring_, "attention joins"),
        pages_(*options.memory, options.stream, ring_, "page tables"),
        angles_(*options.memory, options.stream, "rotary angles"),
        partials_(*options.memory, options.stream, "attention folds"),
        products_(options, facts) {}

  std::string name() const override {
    return products_.library().empty() ? name_ : name_ + " " + products_.library();
  }
  ActivationType activations() const override { return options_.activations; }

  uint64_t PackedBytes(DType type, const MatrixSlice& slice) const override {
    return DivideUp(slice.rows(), kPanelRows) * PanelBytes(type, slice);
  }
  void Pack(const TensorView& tensor, PackedMatrix& out) override;

  uint64_t PreparedBytes(uint64_t n, uint64_t cols) const override {
    return products_.PreparedBytes(n, cols);
  }
  PreparedRows PrepareRows(const float* x, uint64_t n, uint64_t cols, DType weight_type,
                           Int8Parts parts, std::byte* scratch) override {
    return products_.Prepare({.x = x, .n = Narrow(n), .cols = Narrow(cols)},
                             products_.FormOf(weight_type, n, recording()), parts, scratch,
                             Asked("rows of a product"));
  }
  PreparedRows PrepareSwiGlu(float* gate, const float* up, uint64_t n, uint64_t cols,
                             DType weight_type, Int8Parts parts, std::byte* scratch) override {
    const RowForm form = products_.FormOf(weight_type, n, recording());
    if (form == RowForm::kF32) {
      SwiGlu(gate, up, n * cols, gate);
      up = nullptr;
    }
    return products_.Prepare({.x = gate, .up = up, .n = Narrow(n), .cols = Narrow(cols)}, form,
                             parts, scratch, Asked("SwiGLU"));
  }
  void MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) override {
    products_.MatMul(x, tasks, recording(), Asked("product"));
  }

  void Embed(const PackedMatrix& table, const MatrixSlice& slice, std::span<const int32_t> ids,
             float* out) override;
  void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
               float* y) override {
    if (n == 0) return;
    LaunchNorm({.x = x, .w = w, .eps = eps, .n = n, .width = Narrow(hidden), .norm = y},
               Asked("norm"));
  }
  void AddNorm(const float* x, const float* y, const float* w, float eps, uint64_t n,
               uint64_t hidden, float* sum, float* norm) override {
    if (n == 0) return;
    NormCall call{.x = x, .y = y, .w = w, .eps = eps, .n = n, .width = Narrow(hidden)};
    call.sum = sum;
    call.norm = norm;
    LaunchNorm(call, Asked("add and norm"));
  }
  void Add(const float* x, const float* y, uint64_t n, float* out) override {
    if (n > 0) LaunchAdd(x, y, n, out, Asked("add"));
  }
  void AddBias(const float* bias, uint64_t n, uint64_t width, float* y) override {
    if (n * width > 0) LaunchAddBias(bias, n, width, y, Asked("bias"));
  }
  void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) override {
    if (n > 0) LaunchSwiGlu(gate, up, n, out, Asked("SwiGLU"));
  }

  KeyOrder key_order() const override { return KeyOrder::kByPosition; }
  void RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads, const RopeParams& rope,
                    std::span<const SequenceRows> sequences, const KvView& kv) override;
  void Attention(const float* q, uint32_t q_heads, uint32_t window,
                 std::span<const SequenceRows> sequences, const KvView& kv, float* out) override;

  uint64_t TopKBytes(uint64_t n, uint32_t width, uint32_t k) const override {
    return TopKScratch(n, width, k);
  }
  void TopK(const float* x, uint64_t n, uint32_t width, uint32_t k, std::byte* scratch,
            TopEntry* out) override {
    CheckTopK(width, k);
    Check(n <= 65535, "kernels/cuda: TopK of more rows than a grid has");
    if (n > 0) LaunchTopK(x, Narrow(n), width, k, scratch, out, Asked("top k"));
  }
  void Zero(float* x, uint64_t n) override {
    if (n > 0) ZeroOnGpu(x, n * sizeof(float), Asked("zero"));
  }
  void CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
                uint64_t width, uint64_t rows) override {
    if (width * rows == 0) return;
    CopyRowsOnGpu(to, to_stride * sizeof(float), from, from_stride * sizeof(float),
                  width * sizeof(float), rows, Asked("copy of rows"));
  }
  void Finish() override { cuda::Finish(options_.stream, last_); }
  OpsRecorder* recorder() override;

 private:
  // The stream, with what it is asked for from here on.
  GpuStream Asked(const char* what) {
    last_ = what;
    return {options_.stream, early_};
  }
  bool recording() const { return recorder_ != nullptr && recorder_->active(); }
  uint32_t busy_blocks() const { return static_cast<uint32_t>(2 * facts_.sm_count); }
  void PlaceRowsOf(std::span<const SequenceRows> sequences, const RopeParams& rope, RopeCall& call);
  void AttendRecorded(AttentionCall& call, std::span<const SequenceRows> sequences,
                      uint64_t state_bytes, const GpuStream& stream);

  CudaOpsOptions options_;
  GpuFacts facts_;
  const std::string name_;
  const bool early_;  // kernels may begin while the one before runs (launch.h)
  const char* last_ = "nothing";
  PinnedRing ring_;
  StepTable ids_, places_, frequencies_, tiles_, wide_, joins_, pages_;
  GrowingBuffer angles_, partials_;
  Products products_;
  std::unique_ptr<StepRecorder> recorder_;  // once asked for
  std::vector<RowPlace> row_places_;
  bool turned_ = false;     // the angles are those of the rows and frequencies
  float magnitude_ = 0.0f;  // that the angles have
};

void CudaOps::Pack(const TensorView& tensor, PackedMatrix& out) {
  CheckPack(tensor, out, PackedBytes(out.type, out.slice));
  const uint64_t panel_bytes = PanelBytes(out.type, out.slice);
  const uint64_t rows = out.slice.rows();
  for (uint64_t row = 0; row < rows; row += kPanelRows) {
    const std::byte* stored =
        tensor.row(out.slice.row_begin + row) + RowBytes(out.type, out.slice.col_begin);
    PackPanel(out.type, stored, tensor.row_bytes(),
              static_cast<uint32_t>(std::min<uint64_t>(kPanelRows, rows - row)),
              Narrow(out.slice.cols()), out.data + row / kPanelRows * panel_bytes);
  }
}

void CudaOps::Embed(const PackedMatrix& table, const MatrixSlice& slice,
                    std::span<const int32_t> ids, float* out) {
  CheckInside(table.type, slice, table.slice);
  if (ids.empty() || slice.cols() == 0) return;
  EmbedCall call{.table = table.data, .panel_bytes = PanelBytes(table.type, table.slice)};
  call.packed_cols = Narrow(table.slice.cols());
  call.col_begin = Narrow(slice.col_begin - table.slice.col_begin);
  call.hidden = Narrow(slice.cols());
  call.first_id = static_cast<int64_t>(table.slice.row_begin);
  call.id_begin = static_cast<int64_t>(slice.row_begin);
  call.id_end = static_cast<int64_t>(slice.row_end);
  call.ids = recording() ? recorder_->Ids(ids) : ids_.Put(ids);
  call.n = Narrow(ids.size());
  call.out = out;
  LaunchEmbed(table.type, call, Asked("embedding"));
}

OpsRecorder* CudaOps::recorder() {
  if (recorder_ == nullptr) {
    // What recorded kernels write stays where it is from here on.
    partials_.Fix(kMostPartialBytes);
    recorder_ =
        std::make_unique<StepRecorder>(*options_.memory, options_.stream, ring_, busy_blocks());
  }
  return recorder_.get();
}

// The rows' places, pages and angles, for all layers of a step.
void CudaOps::PlaceRowsOf(std::span<const SequenceRows> sequences, const RopeParams& rope,
                          RopeCall& call) {
  if (recording()) {
    const StepRecorder::Turns turns = recorder_->Rope(sequences, rope);
    call.rows = turns.places;
    call.n = turns.n;
    call.angles = turns.angles;
    return;
  }
  uint64_t n = 0;
  for (const SequenceRows& sequence : sequences) n += sequence.n_rows;
  call.n = Narrow(n);
  if (n == 0) return;
  row_places_.resize(n);
  RowPlace* place = row_places_.data();
  for (const SequenceRows& sequence : sequences) place = PlaceRows(sequence, place);
  bool moved = false, changed = false;
  call.rows = places_.Put(std::span<const RowPlace>(row_places_), &moved);
  const std::vector<double> own = FrequenciesOf(rope);
  const double* frequencies = frequencies_.Put(std::span<const double>(own), &changed);
  turned_ = turned_ && !moved && !changed && magnitude_ == rope.magnitude;
  auto* angles = reinterpret_cast<float*>(angles_.Reserve(n * rope.rope_dim * sizeof(float)));
  if (!turned_ && call.half > 0) {
    LaunchAngles(call.rows, call.n, frequencies, call.half, rope.magnitude, angles,
                 Asked("rotary angles"));
  }
  turned_ = true;
  magnitude_ = rope.magnitude;
  call.angles = angles;
}

void CudaOps::RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads,
                           const RopeParams& rope, std::span<const SequenceRows> sequences,
                           const KvView& kv) {
  CheckRope(rope, kv, q_heads);
  CheckSequences(sequences);
  RopeCall call{.q = q, .k = k, .v = v, .q_heads = q_heads, .half = rope.rope_dim / 2};
  call.interleaved = rope.interleaved;
  call.kv = kv;
  const GpuStream stream = Asked("rotation");
  PlaceRowsOf(sequences, rope, call);
  if (call.n > 0) LaunchRopeAndStore(call, stream);
}

void CudaOps::Attention(const float* q, uint32_t q_heads, uint32_t window,
                        std::span<const SequenceRows> sequences, const KvView& kv, float* out) {
  CheckAttention(kv, q_heads);
  CheckSequences(sequences);
  const uint32_t padded = PaddedHeadDim(kv.head_dim);
  if (padded == 0) {
    Fail(ErrorCode::kUnsupported,
         fmt::format("kernels/cuda: heads of {} dimensions (want at most 256); use --devices cpu",
                     kv.head_dim));
  }
  Check(kv.head_dim % 8 != 0 || (IsAligned(kv.base) && kv.stride % 16 == 0),
        "kernels/cuda: KV pages at multiples of 16 bytes");
  const uint64_t state_bytes = StateFloats(padded) * sizeof(float);
  const GpuStream stream = Asked("attention");
  AttentionCall call{.q = q, .out = out, .q_heads = q_heads, .window = window};
  call.precision = options_.attention;
  call.kv = kv;
  if (recording()) return AttendRecorded(call, sequences, state_bytes, stream);
  const AttentionPlan plan =
      PlanAttention(sequences, {q_heads / kv.kv_heads, kv.kv_heads, window},
                    {busy_blocks(), kMostPartialBytes / state_bytes,
                     CanBeWide(kv.head_dim) ? WideQueries(options_.attention) : 0});
  if (plan.pages.empty()) return;
  call.pages = pages_.Put(std::span<const int32_t>(plan.pages));
  if (!plan.wide.empty()) {
    Check(IsAligned(out), "kernels/cuda: outputs of attention at a multiple of 16 bytes");
    call.tiles = wide_.Put(std::span<const AttentionTile>(plan.wide));
    call.n_tiles = Narrow(plan.wide.size());
    LaunchWideAttention(call, stream);
  }
  if (plan.tiles.empty()) return;
  call.tiles = tiles_.Put(std::span<const AttentionTile>(plan.tiles));
  call.n_tiles = Narrow(plan.tiles.size());
  if (plan.partials > 0) {
    call.partials =
        reinterpret_cast<float*>(partials_.Reserve(plan.partials * kv.kv_heads * state_bytes));
  }
  LaunchAttention(call, stream);
  if (plan.joins.empty()) return;
  call.tiles = joins_.Put(std::span<const AttentionTile>(plan.joins));
  call.n_tiles = Narrow(plan.joins.size());
  LaunchJoinFolds(call, stream);
}

void CudaOps::AttendRecorded(AttentionCall& call, std::span<const SequenceRows> sequences,
                             uint64_t state_bytes, const GpuStream& stream) {
  if (sequences.empty()) return;
  const StepRecorder::Tiles tiles = recorder_->Attention(
      sequences, {call.q_heads / call.kv.kv_heads, call.kv.kv_heads, call.window},
      kMostPartialBytes / state_bytes);
  call.tiles = tiles.tiles;
  call.n_tiles = tiles.n_tiles;
  call.pages = tiles.pages;
  call.partials = reinterpret_cast<float*>(partials_.Reserve(1));
  LaunchAttention(call, stream);
  if (tiles.n_joins == 0) return;
  call.tiles = tiles.joins;
  call.n_tiles = tiles.n_joins;
  LaunchJoinFolds(call, stream);
}

}  // namespace
}  // namespace cuda

std::unique_ptr<Ops> MakeCudaOps(const CudaOpsOptions& options) {
  Check(options.memory != nullptr, "kernels/cuda: MakeCudaOps without the device's memory");
  cuda::GpuFacts facts = cuda::ReadGpuFacts(options.device);
  if (options.sm_count > 0) facts.sm_count = options.sm_count;
  if (facts.compute < cuda::kLeastCompute) {
    Fail(
        ErrorCode::kUnsupported,
        fmt::format("kernels/cuda: GPU {} has compute capability {}.{} (want 8.0 or later: Ampere, "
                    "Ada, Hopper, Blackwell); use --devices cpu",
                    options.device, facts.compute / 10, facts.compute % 10));
  }
  return std::make_unique<cuda::CudaOps>(options, facts,
                                         cuda::ReadKernelCode(options.device, cuda::AKernel()));
}

}  // namespace tandem
