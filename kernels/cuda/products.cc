#include "kernels/cuda/products.h"

#include <algorithm>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "kernels/cuda/fetch_ahead.h"
#include "kernels/cuda/layout.h"
#include "kernels/validate.h"

namespace tandem::cuda {
namespace {

// Up to here the weights' bytes cost more than reading them for every 16 rows anew from the cache.
constexpr uint64_t kFewRows = 32;

uint64_t DivideUp(uint64_t n, uint64_t by) { return (n + by - 1) / by; }

bool IsAligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

MatMulPart PartOf(const MatMulTask& task) {
  const PackedMatrix& w = *task.w;
  MatMulPart part{.w = w.data, .y = task.y, .y_stride = task.y_stride};
  part.row_begin = Narrow(task.slice.row_begin - w.slice.row_begin);
  part.row_end = Narrow(task.slice.row_end - w.slice.row_begin);
  part.col_begin = Narrow(task.slice.col_begin - w.slice.col_begin);
  part.packed_cols = Narrow(w.slice.cols());
  part.panel_bytes = PanelBytes(w.type, w.slice);
  return part;
}

std::unique_ptr<LibraryProducts> LibraryFor(const CudaOpsOptions& options, const GpuFacts& facts) {
  if (options.prefill_products == PrefillProducts::kOwn) return nullptr;
  if (options.activations == ActivationType::kF32) {
    Fail(ErrorCode::kInvalidArgument,
         "kernels/cuda: cuBLASLt multiplies BF16 by BF16, which f32 activations rule out; use "
         "--activations int8, or --prefill-products own");
  }
  return std::make_unique<LibraryProducts>(*options.memory, options.library, facts.sm_count,
                                           options.sm_count > 0);
}

}  // namespace

uint64_t PanelBytes(DType type, const MatrixSlice& slice) {
  return kPanelRows * RowBytes(type, slice.cols());
}

uint32_t Narrow(uint64_t n) {
  Check(n <= UINT32_MAX / 2, "kernels/cuda: a matrix or a step beyond 2^31");
  return static_cast<uint32_t>(n);
}

Products::Products(const CudaOpsOptions& options, const GpuFacts& facts)
    : activations_(options.activations), facts_(facts), library_(LibraryFor(options, facts)) {}

RowForm Products::FormOf(DType weights, uint64_t n, bool recorded) const {
  return ByLibrary(n, recorded) ? RowForm::kBf16 : FormFor(activations_, weights);
}

uint64_t Products::PreparedBytes(uint64_t n, uint64_t cols) const {
  if (activations_ == ActivationType::kF32) return 0;
  const uint64_t bf16 = DivideUp(cols, kBf16Cols) * kBf16Cols * sizeof(uint16_t);
  const uint64_t bytes = n * std::max(2 * DivideUp(cols, kGroupCols) * sizeof(PreparedGroup), bf16);
  if (!ByLibrary(n, false)) return bytes;
  return std::max(bytes, DivideUp(n, library_->room().rows) * library_->room().rows * bf16);
}

PreparedRows Products::Prepare(const PrepareCall& call, RowForm form, Int8Parts parts,
                               std::byte* scratch, const GpuStream& stream) const {
  PreparedRows rows{.f32 = call.x, .form = form, .n = call.n, .cols = call.cols};
  if (form == RowForm::kF32) return rows;
  rows.narrow = scratch;
  if (form == RowForm::kInt8) rows.parts = parts;
  if (call.n == 0) return rows;
  Check(IsAligned(scratch), "kernels/cuda: scratch of prepared rows at a multiple of 16 bytes");
  if (form == RowForm::kInt8) {
    Check(call.cols % kBlockCols == 0, "kernels: rows of quantised products are whole blocks");
    LaunchQuantize(call, static_cast<uint32_t>(parts), reinterpret_cast<PreparedGroup*>(scratch),
                   stream);
  } else {
    LaunchToBf16(call, reinterpret_cast<uint16_t*>(scratch), stream);
  }
  return rows;
}

void Products::LaunchCall(DType type, MatMulCall call, const GpuStream& stream) const {
  if (call.n_parts == 0) return;
  call.ahead = GroupsAhead(type, call.panels, facts_);
  Check(call.panels <= 65535, "kernels/cuda: a product of more outputs than a grid has rows");
  switch (FormFor(activations_, type)) {
    case RowForm::kF32:
      return LaunchMatMulF32(type, call, stream);
    case RowForm::kInt8:
      if (call.n > kFewRows) return LaunchPrefillInt8(type, call, stream);
      return LaunchMatMulInt8(type, call, stream);
    case RowForm::kBf16:
      if (call.n > kFewRows) return LaunchPrefillBf16(call, stream);
      return LaunchMatMulBf16(call, stream);
  }
}

void Products::MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks, bool recorded,
                      const GpuStream& stream) {
  for (const MatMulTask& task : tasks) {
    CheckMatMul(x, task, FormOf(task.w->type, x.n, recorded));
    Check(IsAligned(task.w->data), "kernels/cuda: weights at a multiple of 16 bytes");
  }
  if (x.n == 0) return;
  if (ByLibrary(x.n, recorded)) {
    for (const MatMulTask& task : tasks) {
      if (task.slice.rows() == 0) continue;
      library_->Multiply(task.w->type, PartOf(task), Narrow(x.cols), Narrow(x.n),
                         reinterpret_cast<const uint16_t*>(x.narrow), stream);
    }
    return;
  }
  // Tasks of one type share a launch.
  for (DType type : kAllDTypes) {
    MatMulCall call{.n = Narrow(x.n), .cols = Narrow(x.cols), .narrow = x.narrow, .f32 = x.f32};
    if (FormFor(activations_, type) == RowForm::kInt8) {
      call.row_parts = static_cast<uint32_t>(x.parts);
      call.n *= call.row_parts;
    }
    const auto launch = [&] {
      LaunchCall(type, call, stream);
      call.n_parts = 0;
      call.panels = 0;
    };
    for (const MatMulTask& task : tasks) {
      if (task.w->type != type || task.slice.rows() == 0) continue;
      MatMulPart part = PartOf(task);
      part.first_panel = call.panels;
      call.parts[call.n_parts++] = part;
      call.panels += (part.row_end - 1) / kPanelRows - part.row_begin / kPanelRows + 1;
      if (call.n_parts == kMaxParts) launch();
    }
    launch();
  }
}

}  // namespace tandem::cuda
