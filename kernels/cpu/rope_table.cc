#include "kernels/cpu/rope_table.h"

#include <algorithm>
#include <cmath>

namespace tandem::cpu {

bool RopeTable::HasAnglesOf(const RopeParams& rope) const {
  return rope.rope_dim == params_.rope_dim && rope.theta == params_.theta &&
         rope.scale == params_.scale && rope.magnitude == params_.magnitude &&
         std::ranges::equal(rope.frequencies, given_);
}

void RopeTable::SetParams(const RopeParams& rope) {
  given_.assign(rope.frequencies.begin(), rope.frequencies.end());
  params_ = rope;
  params_.frequencies = given_;
  half_ = rope.rope_dim / 2;
  positions_.clear();
  frequencies_ = given_;
  if (!given_.empty()) return;
  for (uint64_t i = 0; i < half_; ++i) {
    const double turn = std::pow(double{rope.theta}, -2.0 * static_cast<double>(i) / rope.rope_dim);
    frequencies_.push_back(turn / rope.scale);
  }
}

uint64_t RopeTable::Prepare(const RopeParams& rope, std::span<const SequenceRows> sequences) {
  if (!HasAnglesOf(rope)) SetParams(rope);
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
      const double angle = rows_[r].position * frequencies_[i];
      angles[i] = static_cast<float>(std::cos(angle) * rope.magnitude);
      angles[half_ + i] = static_cast<float>(std::sin(angle) * rope.magnitude);
    }
  }
  return rows_.size();
}

}  // namespace tandem::cpu
