#include "engine/model/verify.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <mutex>
#include <thread>

namespace tandem {
namespace {

constexpr uint64_t kElemsPerTask = 1u << 21;

// Some rows of one tensor.
struct Task {
  size_t tensor;
  uint64_t row_begin, row_end;
};

struct Tally {
  uint64_t nans = 0;
  uint64_t infinities = 0;
  uint64_t first = UINT64_MAX;  // element of the tensor
  bool any_nonzero = false;
};

void Count(const float* row, uint64_t cols, uint64_t first_elem, Tally& tally) {
  static constexpr uint32_t kInfinity = 0x7f800000u;
  uint32_t largest = 0;
  for (uint64_t i = 0; i < cols; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(row[i]) & 0x7fffffffu);
  }
  tally.any_nonzero |= largest != 0;
  if (largest < kInfinity) {
    return;
  }
  for (uint64_t i = 0; i < cols; ++i) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(row[i]) & 0x7fffffffu;
    tally.nans += magnitude > kInfinity ? 1 : 0;
    tally.infinities += magnitude == kInfinity ? 1 : 0;
    if (magnitude >= kInfinity) {
      tally.first = std::min(tally.first, first_elem + i);
    }
  }
}

Tally CheckRows(const TensorView& view, const Task& task, std::vector<float>& row) {
  Tally tally;
  row.resize(view.cols);
  for (uint64_t r = task.row_begin; r < task.row_end; ++r) {
    DequantizeRow(view.type, view.row(r), row.data(), view.cols);
    Count(row.data(), view.cols, r * view.cols, tally);
  }
  return tally;
}

std::vector<Task> Cut(std::span<const SurveyedTensor> tensors) {
  std::vector<Task> tasks;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorView& view = tensors[i].view;
    if (view.data == nullptr || view.cols == 0) {
      continue;
    }
    const uint64_t rows = std::max<uint64_t>(1, kElemsPerTask / view.cols);
    for (uint64_t r = 0; r < view.rows; r += rows) {
      tasks.push_back({i, r, std::min(view.rows, r + rows)});
    }
  }
  return tasks;
}

VerifyReport Summarize(std::span<const SurveyedTensor> tensors, const std::vector<Tally>& tallies) {
  VerifyReport report;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const SurveyedTensor& tensor = tensors[i];
    if (tensor.view.data == nullptr) {
      if (tensor.problem.empty()) report.skipped.push_back(tensor.name);
      continue;
    }
    ++report.checked;
    report.checked_bytes += tensor.bytes;
    const Tally& tally = tallies[i];
    const bool bad = tally.nans + tally.infinities > 0;
    if (bad || !tally.any_nonzero) {
      report.findings.push_back({.tensor = tensor.name,
                                 .type = tensor.type,
                                 .nans = tally.nans,
                                 .infinities = tally.infinities,
                                 .row = bad ? tally.first / tensor.view.cols : 0,
                                 .column = bad ? tally.first % tensor.view.cols : 0,
                                 .all_zero = !tally.any_nonzero});
    }
  }
  return report;
}

}  // namespace

bool VerifyReport::ok() const {
  return std::none_of(findings.begin(), findings.end(),
                      [](const TensorFinding& finding) { return finding.bad(); });
}

VerifyReport VerifyWeights(std::span<const SurveyedTensor> tensors,
                           const std::function<void(uint64_t, uint64_t)>& progress) {
  const std::vector<Task> tasks = Cut(tensors);
  uint64_t all = 0;
  for (const Task& task : tasks) {
    all += (task.row_end - task.row_begin) * tensors[task.tensor].view.row_bytes();
  }
  std::vector<Tally> tallies(tensors.size());
  std::mutex mutex;  // guards tallies
  std::atomic<size_t> next{0};
  std::atomic<uint64_t> done{0};
  const auto work = [&](bool reports) {
    std::vector<float> row;
    for (size_t t = next++; t < tasks.size(); t = next++) {
      const Task& task = tasks[t];
      const TensorView& view = tensors[task.tensor].view;
      const Tally own = CheckRows(view, task, row);
      {
        const std::lock_guard lock(mutex);
        Tally& tally = tallies[task.tensor];
        tally.nans += own.nans;
        tally.infinities += own.infinities;
        tally.first = std::min(tally.first, own.first);
        tally.any_nonzero |= own.any_nonzero;
      }
      done += (task.row_end - task.row_begin) * view.row_bytes();
      if (reports) {
        progress(done, all);
      }
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (unsigned i = 1; i < std::clamp(std::thread::hardware_concurrency(), 1u, 16u); ++i) {
      helpers.emplace_back(work, false);
    }
    work(true);
  }
  progress(all, all);
  return Summarize(tensors, tallies);
}

}  // namespace tandem
