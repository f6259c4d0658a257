#include "engine/lab/product_probe.h"

#include <algorithm>

#include "engine/model/dtype.h"

namespace tandem {
namespace {

constexpr uint64_t kDifferentRows = 32;
constexpr size_t kPrefillCopies = 4;
constexpr const char* kWhat = "rig probe";

// In [-1, 1), another for every index.
float Value(uint64_t i) {
  uint64_t x = (i + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 31)) * 0xbf58476d1ce4e5b9u;
  return static_cast<float>(static_cast<int64_t>(x)) * 0x1p-63f;
}

std::vector<std::byte> StoredWeights(DType type, uint64_t rows, uint64_t cols) {
  const uint64_t row_bytes = RowBytes(type, cols);
  std::vector<std::byte> stored(rows * row_bytes);
  std::vector<float> row(cols);
  for (uint64_t r = 0; r < std::min(rows, kDifferentRows); ++r) {
    for (uint64_t c = 0; c < cols; ++c) row[c] = Value(r * cols + c);
    QuantizeRow(type, row.data(), &stored[r * row_bytes], cols);
  }
  const auto period = static_cast<ptrdiff_t>(kDifferentRows * row_bytes);
  for (ptrdiff_t at = period; at < static_cast<ptrdiff_t>(stored.size()); at += period) {
    const auto left = static_cast<ptrdiff_t>(stored.size()) - at;
    std::copy_n(stored.begin(), std::min(period, left), stored.begin() + at);
  }
  return stored;
}

}  // namespace

DeviceMeasure ProductRoof(Device& device) {
  return device.works_alone() ? DeviceMeasure::kProductBf16 : DeviceMeasure::kProductInt8;
}

ProductSizes DefaultProductSizes(Device& device) {
  const bool gpu = device.works_alone();
  return ProductSizes{.bytes = uint64_t{gpu ? 512u : 128u} << 20, .prompt = gpu ? 2048u : 128u};
}

ProductProbe::ProductProbe(Backend& backend, size_t device, const ProductSizes& sizes)
    : ops_(backend.ops(device)),
      queue_(backend.devices()[device]->queue(QueueRole::kCompute)),
      type_(queue_ != nullptr ? DType::kBF16 : DType::kQ8_0),
      sizes_(sizes) {
  Device& memory = *backend.devices()[device];
  const auto room = [&](uint64_t bytes) {
    return memory.Allocate(MemoryUse::kWorkspace, Bytes{bytes}, kWhat);
  };
  const auto [rows, cols, held, prompt] = sizes_;
  const std::vector<std::byte> stored = StoredWeights(type_, rows, cols);
  const MatrixSlice all{0, rows, 0, cols};
  std::vector<std::byte> packed(ops_.PackedBytes(type_, all));
  PackedMatrix matrix{packed.data(), packed.size(), type_, all};
  ops_.Pack(TensorView{stored.data(), type_, rows, cols}, matrix);
  packed_bytes_ = packed.size();
  for (uint64_t bytes = 0; bytes < held; bytes += packed_bytes_) {
    weights_.push_back(room(packed_bytes_));
    memory.Upload(weights_.back().data(), packed.data(), packed_bytes_);
  }
  std::vector<float> x(prompt * cols);
  for (uint64_t i = 0; i < x.size(); ++i) x[i] = Value(i);
  x_ = room(x.size() * sizeof(float));
  memory.Upload(x_.data(), reinterpret_cast<const std::byte*>(x.data()), x_.size());
  y_ = room(prompt * rows * sizeof(float));
  prepared_ = room(ops_.PreparedBytes(prompt, cols) + 64);
  if (queue_ != nullptr) {
    begin_ = queue_->MakeEvent();
    end_ = queue_->MakeEvent();
  }
}

void ProductProbe::Begin() {
  if (queue_ != nullptr) {
    queue_->Mark(*begin_);
  } else {
    start_ = std::chrono::steady_clock::now();
  }
}

void ProductProbe::End() {
  if (queue_ != nullptr) {
    queue_->Mark(*end_);
  } else {
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
}

// Products of n rows with the first copies.
void ProductProbe::Ask(uint64_t n, size_t copies) {
  Begin();
  const PreparedRows prepared = ops_.PrepareRows(x_.as<const float>(), n, sizes_.cols, type_,
                                                 Int8Parts::kOne, prepared_.data());
  for (size_t i = 0; i < copies; ++i) {
    const PackedMatrix matrix{
        weights_[i].data(), packed_bytes_, type_, {0, sizes_.rows, 0, sizes_.cols}};
    const MatMulTask task{&matrix, matrix.slice, y_.as<float>(), sizes_.rows};
    ops_.MatMul(prepared, {&task, 1});
  }
  End();
}

void ProductProbe::AskDecode() {
  amount_ = static_cast<double>(packed_bytes_ * weights_.size());
  Ask(1, weights_.size());
}

void ProductProbe::AskPrefill() {
  const size_t copies = std::min(kPrefillCopies, weights_.size());
  amount_ = 2.0 * static_cast<double>(sizes_.prompt * sizes_.rows * sizes_.cols * copies);
  Ask(sizes_.prompt, copies);
}

double ProductProbe::Take() {
  if (queue_ != nullptr) {
    queue_->Finish();
    seconds_ = end_->Since(*begin_).Seconds();
  }
  return amount_ / std::max(seconds_, 1e-9);
}

}  // namespace tandem
