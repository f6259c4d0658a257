// Whether a model's weights are numbers: every element of every tensor that can be read is widened
// to f32 and looked at. A block scale that is no number shows in its elements.
//
//   VerifyReport report = VerifyWeights(survey.tensors, [](uint64_t done, uint64_t all) {});
//   for (const TensorFinding& f : report.findings) ...
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/model/survey.h"

namespace tandem {

// A tensor with something wrong in it.
struct TensorFinding {
  std::string tensor;
  std::string type;
  uint64_t nans = 0;             // elements
  uint64_t infinities = 0;       // elements
  uint64_t row = 0, column = 0;  // of the first of them
  bool all_zero = false;         // suspicious, not wrong
  bool bad() const { return nans + infinities > 0; }
};

struct VerifyReport {
  std::vector<TensorFinding> findings;  // in the order of the tensors
  uint64_t checked = 0;                 // tensors
  uint64_t checked_bytes = 0;
  std::vector<std::string> skipped;  // tensors of a type that tandem does not read; no damaged ones
  bool ok() const;                   // no NaN and no infinity
};

// Shares the rows out to this machine's cores; `progress` (bytes done, bytes in all) is called on
// the calling thread.
VerifyReport VerifyWeights(std::span<const SurveyedTensor> tensors,
                           const std::function<void(uint64_t, uint64_t)>& progress);

}  // namespace tandem
