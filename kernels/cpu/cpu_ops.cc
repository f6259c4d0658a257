// The vectorised CPU back end: validates, cuts work into panels, rows and tiles for the thread
// team, and hands each piece to the kernels of one instruction tier (tier.h).
#include "kernels/cpu/cpu_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/device/cpu/thread_pool.h"
#include "engine/model/panel_rows.h"
#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/rope_table.h"
#include "kernels/cpu/tier.h"
#include "kernels/cpu/top_k.h"
#include "kernels/cpu/two_parts.h"
#include "kernels/int8_block.h"
#include "kernels/validate.h"

namespace tandem {
namespace cpu {
namespace {

// Below this many elements a row kernel takes less time than waking the team.
constexpr uint64_t kParallelElems = 16384;

// How panels are shared out. Kernels take two side by side at least where they take several.
constexpr ShareGrain kPanelShares{.least = 2, .most = kPanelGrain};

// To the nearest BF16, ties to even; in integers, so that the compiler makes vectors of it. A NaN
// keeps its upper bits and is made quiet.
void RoundToBf16(const float* x, uint64_t n, float* out) {
  for (uint64_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<uint32_t>(x[i]);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    const uint32_t quiet = (bits | 0x00400000u) & 0xffff0000u;
    out[i] = std::bit_cast<float>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
  }
}

class CpuOps final : public Ops {
 public:
  CpuOps(ThreadPool& pool, const Tier& tier, const CpuOpsOptions& options)
      : pool_(pool),
        tier_(tier),
        activations_(options.activations),
        key_order_(options.key_order),
        attention_(pool, tier, options.key_order) {
    Check(tier.lanes <= kMostPanelRows,
          "kernels: no panel is higher than memory tables count with");
  }

  std::string name() const override { return std::string("cpu/") + tier_.name; }
  ActivationType activations() const override { return activations_; }

  uint64_t PackedBytes(DType type, const MatrixSlice& slice) const override {
    const PanelLayout layout = Layout(type, slice);
    return layout.Panels(slice.rows()) * layout.PanelBytes();
  }

  void Pack(const TensorView& tensor, PackedMatrix& out) override {
    CheckPack(tensor, out, PackedBytes(out.type, out.slice));
    const PanelLayout layout = Layout(out.type, out.slice);
    const uint64_t skip = RowBytes(out.type, out.slice.col_begin);
    pool_.Run([&](int thread, int threads) {
      const WorkRange range =
          SplitWork(static_cast<int64_t>(layout.Panels(out.slice.rows())), thread, threads);
      for (auto p = static_cast<uint64_t>(range.begin); p < static_cast<uint64_t>(range.end); ++p) {
        const uint64_t row = p * tier_.lanes;
        PackPanel(layout, tensor.row(out.slice.row_begin + row) + skip, tensor.row_bytes(),
                  std::min<uint64_t>(tier_.lanes, out.slice.rows() - row),
                  out.data + p * layout.PanelBytes());
      }
    });
  }

  uint64_t PreparedBytes(uint64_t n, uint64_t cols) const override {
    if (activations_ == ActivationType::kF32) return 0;
    // Rows rounded to BF16, as f32 where a tier has no products of BF16: more than int8 takes, and
    // than BF16 with a column of padding.
    return n * cols * sizeof(float);
  }

  PreparedRows PrepareRows(const float* x, uint64_t n, uint64_t cols, DType weight_type,
                           Int8Parts parts, std::byte* scratch) override {
    const PreparedRows rows = Describe(x, n, cols, weight_type, parts, scratch);
    if (rows.form == RowForm::kInt8 && parts == Int8Parts::kOne) {
      auto* blocks = reinterpret_cast<PreparedBlock*>(scratch);
      ForElems(n * cols, kInt8Block, [&](uint64_t begin, uint64_t end) {
        tier_.quantize(x + begin, (end - begin) / kInt8Block, blocks + begin / kInt8Block);
      });
    } else if (rows.form != RowForm::kF32) {
      ForRows(n, cols, [&](uint64_t begin, uint64_t end) {
        for (uint64_t t = begin; t < end; ++t) PrepareRow(rows, t, scratch);
      });
    }
    return rows;
  }

  PreparedRows PrepareSwiGlu(float* gate, const float* up, uint64_t n, uint64_t cols,
                             DType weight_type, Int8Parts parts, std::byte* scratch) override {
    const PreparedRows rows = Describe(gate, n, cols, weight_type, parts, scratch);
    ForRows(n, cols, [&](uint64_t begin, uint64_t end) {
      for (uint64_t t = begin; t < end; ++t) {
        tier_.swiglu(gate + t * cols, up + t * cols, cols, gate + t * cols);
        PrepareRow(rows, t, scratch);
      }
    });
    return rows;
  }

  void MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) override;

  void Embed(const PackedMatrix& table, const MatrixSlice& slice, std::span<const int32_t> ids,
             float* out) override {
    CheckInside(table.type, slice, table.slice);
    const PanelLayout layout = Layout(table.type, table.slice);
    const uint64_t hidden = slice.cols();
    stored_row_.resize(RowBytes(table.type, hidden));
    for (size_t t = 0; t < ids.size(); ++t) {
      float* row = out + t * hidden;
      const auto id = static_cast<uint64_t>(ids[t]);
      if (ids[t] < 0 || id < slice.row_begin || id >= slice.row_end) {
        std::fill(row, row + hidden, 0.0f);
        continue;
      }
      UnpackRow(layout, table.data, id - table.slice.row_begin,
                slice.col_begin - table.slice.col_begin, hidden, stored_row_.data());
      DequantizeRow(table.type, stored_row_.data(), row, hidden);
    }
  }

  void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
               float* y) override {
    ForRows(n, hidden, [&](uint64_t begin, uint64_t end) {
      tier_.rms_norm(x + begin * hidden, w, eps, end - begin, hidden, y + begin * hidden);
    });
  }

  void Add(const float* x, const float* y, uint64_t n, float* out) override {
    ForElems(n, 16, [&](uint64_t begin, uint64_t end) {
      tier_.add(x + begin, y + begin, end - begin, out + begin);
    });
  }

  void AddNorm(const float* x, const float* y, const float* w, float eps, uint64_t n,
               uint64_t hidden, float* sum, float* norm) override {
    ForRows(n, hidden, [&](uint64_t begin, uint64_t end) {
      for (uint64_t at = begin * hidden; at < end * hidden; at += hidden) {
        tier_.add(x + at, y + at, hidden, sum + at);
        tier_.rms_norm(sum + at, w, eps, 1, hidden, norm + at);
      }
    });
  }

  void AddBias(const float* bias, uint64_t n, uint64_t width, float* y) override {
    ForRows(n, width, [&](uint64_t begin, uint64_t end) {
      for (uint64_t t = begin; t < end; ++t) {
        tier_.add(y + t * width, bias, width, y + t * width);
      }
    });
  }

  void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) override {
    ForElems(n, 16, [&](uint64_t begin, uint64_t end) {
      tier_.swiglu(gate + begin, up + begin, end - begin, out + begin);
    });
  }

  KeyOrder key_order() const override { return key_order_; }
  void RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads, const RopeParams& rope,
                    std::span<const SequenceRows> sequences, const KvView& kv) override;

  void Attention(const float* q, uint32_t q_heads, uint32_t window,
                 std::span<const SequenceRows> sequences, const KvView& kv, float* out) override {
    CheckAttention(kv, q_heads);
    CheckSequences(sequences);
    attention_.Run(q, q_heads, window, sequences, kv, out);
  }

  uint64_t TopKBytes(uint64_t, uint32_t, uint32_t) const override { return 0; }
  void TopK(const float* x, uint64_t n, uint32_t width, uint32_t k, std::byte*,
            TopEntry* out) override {
    CheckTopK(width, k);
    for (uint64_t row = 0; row < n; ++row) TopKOfRow(x + row * width, width, k, out + row * k);
  }

  void Zero(float* x, uint64_t n) override { std::fill_n(x, n, 0.0f); }

  void CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
                uint64_t width, uint64_t rows) override {
    for (uint64_t row = 0; row < rows; ++row) {
      std::memcpy(to + row * to_stride, from + row * from_stride, width * sizeof(float));
    }
  }

  void Finish() override {}

 private:
  PanelLayout Layout(DType type, const MatrixSlice& slice) const {
    return PanelLayout{type, tier_.lanes, slice.cols(), tier_.bf16_pairs};
  }

  PreparedRows Describe(const float* x, uint64_t n, uint64_t cols, DType weight_type,
                        Int8Parts parts, std::byte* scratch) const {
    PreparedRows rows{.f32 = x, .form = FormFor(activations_, weight_type), .n = n, .cols = cols};
    if (rows.form == RowForm::kF32) return rows;
    if (rows.form == RowForm::kInt8) {
      Check(cols % kInt8Block == 0, "kernels: rows of quantised products are whole blocks");
      rows.parts = parts;
    }
    rows.narrow = scratch;
    return rows;
  }
  // Row t from its f32 values. BF16 as such for a tier that multiplies it, else as f32.
  void PrepareRow(const PreparedRows& rows, uint64_t t, std::byte* out) const {
    const float* x = rows.f32 + t * rows.cols;
    if (rows.form == RowForm::kInt8) {
      const uint64_t row_blocks = rows.cols / kInt8Block;
      auto* blocks = reinterpret_cast<PreparedBlock*>(out);
      if (rows.parts == Int8Parts::kTwo) {
        QuantizeTwoParts(tier_, x, row_blocks, blocks + 2 * t * row_blocks);
      } else {
        tier_.quantize(x, row_blocks, blocks + t * row_blocks);
      }
    } else if (rows.form == RowForm::kBf16 && tier_.to_bf16 == nullptr) {
      RoundToBf16(x, rows.cols, reinterpret_cast<float*>(out) + t * rows.cols);
    } else if (rows.form == RowForm::kBf16) {
      const uint64_t padded = PaddedBf16Cols(rows.cols);
      uint16_t* row = reinterpret_cast<uint16_t*>(out) + t * padded;
      row[padded - 1] = 0;
      tier_.to_bf16(x, rows.cols, row);
    }
  }

  // body(begin, end) over [0, n) cut at multiples of grain, on the team when there is enough of it.
  template <typename Body>
  void ForElems(uint64_t n, uint64_t grain, Body body) {
    if (n < kParallelElems) {
      if (n > 0) body(uint64_t{0}, n);
      return;
    }
    const int parts = 4 * pool_.threads();
    pool_.RunTasks(static_cast<uint32_t>(parts), [&](uint32_t part, int) {
      const WorkRange range = SplitWork(static_cast<int64_t>(n), static_cast<int>(part), parts,
                                        static_cast<int64_t>(grain));
      if (range.begin < range.end) {
        body(static_cast<uint64_t>(range.begin), static_cast<uint64_t>(range.end));
      }
    });
  }
  template <typename Body>
  void ForRows(uint64_t n, uint64_t width, Body body) {
    ForElems(n * width, width,
             [&](uint64_t begin, uint64_t end) { body(begin / width, end / width); });
  }

  void StoreKey(const float* key, uint64_t head_dim, uint16_t* to) const;
  PanelJob JobOf(const PreparedRows& x, const MatMulTask& task) const;
  void RunPanels(uint64_t begin, uint64_t end) const;

  ThreadPool& pool_;
  const Tier& tier_;
  ActivationType activations_;
  KeyOrder key_order_;
  AttentionDriver attention_;
  RopeTable rope_;
  std::vector<std::byte> stored_row_;
  std::vector<PanelJob> jobs_;
  std::vector<uint64_t> first_panel_;  // of each job in the count over all jobs, and the total
};

// A task as one job over all its panels.
PanelJob CpuOps::JobOf(const PreparedRows& x, const MatMulTask& task) const {
  const PackedMatrix& w = *task.w;
  const PanelLayout layout = Layout(w.type, w.slice);
  const uint64_t row = task.slice.row_begin - w.slice.row_begin;
  const uint64_t panel = row / tier_.lanes;
  PanelJob job{.type = w.type};
  const uint64_t col = task.slice.col_begin - w.slice.col_begin;
  Check(col % layout.BlockElems() == 0, "kernels: a slice of BF16 columns cuts a pair");
  job.panels = w.data + layout.Offset(panel, col);
  job.panel_stride = layout.PanelBytes();
  job.cols = x.cols;
  job.row_begin = row - panel * tier_.lanes;
  job.row_end = job.row_begin + task.slice.rows();
  job.n = x.n;
  job.f32 = x.f32;
  switch (FormFor(activations_, w.type)) {
    case RowForm::kF32:
      break;
    case RowForm::kInt8:
      job.int8 = reinterpret_cast<const PreparedBlock*>(x.narrow);
      job.parts = x.parts;
      break;
    case RowForm::kBf16:
      if (tier_.matmul_bf16 == nullptr) {
        job.f32 = reinterpret_cast<const float*>(x.narrow);
      } else {
        job.bf16 = reinterpret_cast<const uint16_t*>(x.narrow);
      }
  }
  job.y = task.y;
  job.y_stride = task.y_stride;
  return job;
}

void CpuOps::MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) {
  if (x.n == 0) return;
  jobs_.clear();
  first_panel_.assign(1, 0);
  for (const MatMulTask& task : tasks) {
    CheckMatMul(x, task, FormFor(activations_, task.w->type));
    if (task.slice.rows() == 0) continue;
    jobs_.push_back(JobOf(x, task));
    first_panel_.push_back(first_panel_.back() +
                           (jobs_.back().row_end + tier_.lanes - 1) / tier_.lanes);
  }
  pool_.RunShares(static_cast<uint32_t>(first_panel_.back()), kPanelShares,
                  [&](uint32_t begin, uint32_t end, int) { RunPanels(begin, end); });
}

// Panels [begin, end) of the count over all jobs.
void CpuOps::RunPanels(uint64_t begin, uint64_t end) const {
  for (size_t i = 0; i < jobs_.size(); ++i) {
    if (end <= first_panel_[i] || begin >= first_panel_[i + 1]) continue;
    const uint64_t first = std::max(begin, first_panel_[i]) - first_panel_[i];
    const uint64_t last = std::min(end, first_panel_[i + 1]) - first_panel_[i];
    PanelJob job = jobs_[i];
    const uint64_t row_begin = std::max(job.row_begin, first * tier_.lanes);
    job.y += row_begin - job.row_begin;
    job.panels += first * job.panel_stride;
    job.row_begin = row_begin - first * tier_.lanes;
    job.row_end = std::min(job.row_end, last * tier_.lanes) - first * tier_.lanes;
    if (job.int8 != nullptr && job.parts == Int8Parts::kTwo) {
      MultiplyTwoParts(tier_, job);
    } else if (job.int8 != nullptr) {
      tier_.matmul_int8(job);
    } else if (job.bf16 != nullptr) {
      tier_.matmul_bf16(job);
    } else {
      tier_.matmul_f32(job);
    }
  }
}

// key (head_dim) -> a column of a page's (head_dim, kPageTokens)
void CpuOps::StoreKey(const float* key, uint64_t head_dim, uint16_t* to) const {
  constexpr uint64_t kTogether = 64;
  uint16_t halves[kTogether];
  for (uint64_t first = 0; first < head_dim; first += kTogether) {
    const uint64_t n = std::min(kTogether, head_dim - first);
    tier_.to_f16(key + first, n, halves);
    for (uint64_t d = 0; d < n; ++d) to[(first + d) * kPageTokens] = halves[d];
  }
}

void CpuOps::RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads,
                          const RopeParams& rope, std::span<const SequenceRows> sequences,
                          const KvView& kv) {
  CheckRope(rope, kv, q_heads);
  CheckSequences(sequences);
  const uint64_t rows = rope_.Prepare(rope, sequences);
  const uint64_t hd = kv.head_dim;
  const uint64_t q_width = q_heads * hd;
  const uint64_t kv_width = kv.kv_heads * hd;
  ForRows(rows, q_width + 2 * kv_width, [&](uint64_t begin, uint64_t end) {
    for (uint64_t i = begin; i < end; ++i) {
      const RopeTable::Row& row = rope_.row(i);
      auto* page = reinterpret_cast<uint16_t*>(kv.base + row.page * kv.stride);
      // A key's column is a line an element: they come while q and k are rotated.
      for (uint64_t d = 0; d < kv_width && key_order_ == KeyOrder::kByColumn; ++d) {
        __builtin_prefetch(page + d * kPageTokens + row.slot, 1);
      }
      RotateJob job{.heads = q + row.index * q_width, .n_heads = q_heads};
      job.head_dim = kv.head_dim;
      job.rope_dim = rope.rope_dim;
      job.interleaved = rope.interleaved;
      job.cosines = rope_.cosines(i);
      job.sines = rope_.sines(i);
      tier_.rotate(job);
      job.heads = k + row.index * kv_width;
      job.n_heads = kv.kv_heads;
      tier_.rotate(job);
      for (uint64_t head = 0; head < kv.kv_heads; ++head) {
        uint16_t* keys = page + head * kPageTokens * hd;
        uint16_t* values = keys + uint64_t{kv.kv_heads} * kPageTokens * hd;
        const float* key = k + row.index * kv_width + head * hd;
        if (key_order_ == KeyOrder::kByColumn) {
          StoreKey(key, hd, keys + row.slot);
        } else {
          tier_.to_f16(key, hd, keys + row.slot * hd);
        }
        tier_.to_f16(v + row.index * kv_width + head * hd, hd, values + row.slot * hd);
      }
    }
  });
}

const Tier& ChooseTier(const std::string& wanted) {
  const TierList list = CompiledTiers();
  std::string known;
  for (uint32_t i = 0; i < list.count; ++i) {
    const Tier& tier = *list.tiers[i];
    if (!tier.supported()) continue;
    if (wanted == "auto" || wanted == tier.name) return tier;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", tier.name);
  }
  Fail(ErrorCode::kInvalidArgument,
       fmt::format("kernels: instruction tier '{}' is not one that this processor has (want auto, "
                   "{}); leave it at auto",
                   wanted, known));
}

}  // namespace

std::unique_ptr<Ops> MakeOps(ThreadPool& pool, const Tier& tier, const CpuOpsOptions& options) {
  return std::make_unique<CpuOps>(pool, tier, options);
}

}  // namespace cpu

std::unique_ptr<Ops> MakeCpuOps(ThreadPool& pool, const CpuOpsOptions& options) {
  return cpu::MakeOps(pool, cpu::ChooseTier(options.tier), options);
}

}  // namespace tandem
