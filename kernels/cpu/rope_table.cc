#include "kernels/cpu/rope_table.h"

#include <cmath>

namespace tandem::cpu {

uint64_t RopeTable::Prepare(const RopeParams& rope, std::span<const SequenceRows> sequences) {
  const bool same_params = rope.rope_dim == params_.rope_dim && rope.theta == params_.theta &&
                           rope.scale == params_.scale;
  if (!same_params) {
    params_ = rope;
    half_ = rope.rope_dim / 2;
    positions_.clear();
    frequencies_.resize(half_);
    for (uint64_t i = 0; i < half_; ++i) {
      frequencies_[i] = std::pow(double{rope.theta}, -2.0 * static_cast<double>(i) / rope.rope_dim);
    }
  }
  rows_.clear();
  for (const SequenceRows& sequence : sequences) {
    for (uint32_t i = 0; i < sequence.n_rows; ++i) {
      const uint32_t position = sequence.start + i;
      rows_.push_back(Row{uint64_t{sequence.first_row} + i, position, position % kPageTokens,
                          static_cast<uint64_t>(sequence.pages[position / kPageTokens])});
    }
  }
  positions_.resize(rows_.size(), UINT32_MAX);
  angles_.resize(rows_.size() * 2 * half_);
  for (uint64_t r = 0; r < rows_.size(); ++r) {
    if (positions_[r] == rows_[r].position) continue;
    positions_[r] = rows_[r].position;
    float* angles = angles_.data() + r * 2 * half_;
    for (uint64_t i = 0; i < half_; ++i) {
      const double angle = rows_[r].position / double{rope.scale} * frequencies_[i];
      angles[i] = static_cast<float>(std::cos(angle));
      angles[half_ + i] = static_cast<float>(std::sin(angle));
    }
  }
  return rows_.size();
}

}  // namespace tandem::cpu
