#include "kernels/cuda/step_tables.h"

#include <algorithm>
#include <cmath>

namespace tandem::cuda {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kLeastBytes = 64 << 10;

size_t RoundUp(size_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

}  // namespace

PinnedRing::PinnedRing(size_t half_bytes, void* stream)
    : half_bytes_(RoundUp(half_bytes)),
      stream_(stream),
      memory_(AllocatePinned(2 * half_bytes_)),
      left_{MakeEvent(), MakeEvent()} {}

void PinnedRing::Copy(void* to, const std::byte* from, size_t bytes) {
  auto* out = static_cast<std::byte*>(to);
  while (bytes > 0) {
    if (used_ == half_bytes_) {
      Record(left_[half_], stream_);
      waits_[half_] = true;
      half_ = 1 - half_;
      used_ = 0;
      if (waits_[half_]) Wait(left_[half_]);
    }
    const size_t part = std::min(bytes, half_bytes_ - used_);
    std::byte* staged = memory_.get() + half_ * half_bytes_ + used_;
    std::memcpy(staged, from, part);
    CopyToGpu(out, staged, part, stream_);
    used_ = std::min(half_bytes_, RoundUp(used_ + part));
    out += part;
    from += part;
    bytes -= part;
  }
}

std::byte* GrowingBuffer::Reserve(size_t bytes) {
  if (bytes > buffer_.size()) {
    Finish(stream_, what_.c_str());  // the old memory may still be read
    const size_t grown = std::max({bytes + bytes / 2, kLeastBytes, 2 * buffer_.size()});
    buffer_ = Buffer();
    buffer_ = device_.Allocate(MemoryUse::kWorkspace, Bytes{RoundUp(grown)}, what_);
  }
  return buffer_.data();
}

void GrowingBuffer::Fix(size_t bytes) {
  if (bytes <= buffer_.size()) return;
  Finish(stream_, what_.c_str());
  buffer_ = Buffer();
  buffer_ = device_.Allocate(MemoryUse::kWorkspace, Bytes{RoundUp(bytes)}, what_);
}

bool StepTable::PutBytes(const std::byte* from, size_t bytes) {
  if (data_ != nullptr && bytes == held_.size() && std::memcmp(from, held_.data(), bytes) == 0) {
    return false;
  }
  // Nothing is held if no memory is to be had.
  data_ = nullptr;
  data_ = buffer_.Reserve(std::max<size_t>(bytes, 1));
  held_.assign(from, from + bytes);
  ring_.Copy(data_, from, bytes);
  return true;
}

RowPlace* PlaceRows(const SequenceRows& sequence, RowPlace* to) {
  for (uint32_t i = 0; i < sequence.n_rows; ++i) {
    const uint32_t position = sequence.start + i;
    *to++ = {sequence.first_row + i, position, sequence.pages[position / kPageTokens]};
  }
  return to;
}

std::vector<double> FrequenciesOf(const RopeParams& rope) {
  std::vector<double> frequencies(rope.frequencies.begin(), rope.frequencies.end());
  if (!frequencies.empty()) return frequencies;
  for (uint32_t i = 0; i < rope.rope_dim / 2; ++i) {
    frequencies.push_back(std::pow(double{rope.theta}, -2.0 * i / rope.rope_dim) / rope.scale);
  }
  return frequencies;
}

}  // namespace tandem::cuda
