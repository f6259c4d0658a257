// The angles of a step's rows, and where each row's keys and values go. Every layer of a step asks
// for the same rows, so they are computed for the first and found again by the others.
//
// angle_i = position * frequency_i in double; cosine and sine times the magnitude, in f32.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace tandem::cpu {

class RopeTable {
 public:
  struct Row {
    uint64_t index;  // row of q, k and v
    uint32_t position;
    uint32_t slot;  // place in the page
    uint64_t page;
  };

  // Returns how many rows there are.
  uint64_t Prepare(const RopeParams& rope, std::span<const SequenceRows> sequences);

  const Row& row(uint64_t i) const { return rows_[i]; }
  const float* cosines(uint64_t i) const { return angles_.data() + i * 2 * half_; }
  const float* sines(uint64_t i) const { return cosines(i) + half_; }

 private:
  bool HasAnglesOf(const RopeParams& rope) const;
  void SetParams(const RopeParams& rope);

  RopeParams params_;          // its `frequencies` lie in given_
  std::vector<double> given_;  // (half), or empty
  uint64_t half_ = 0;
  std::vector<double> frequencies_;  // (half)
  std::vector<Row> rows_;
  std::vector<uint32_t> positions_;  // that angles_ holds
  std::vector<float> angles_;        // (rows, 2, half): cosines, then sines
};

}  // namespace tandem::cpu
