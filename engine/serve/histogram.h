// A latency histogram with fixed bucket edges, as Prometheus wants it. Not thread-safe: its owner
// locks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tandem {

class Histogram {
 public:
  explicit Histogram(std::vector<double> edges)
      : edges_(std::move(edges)), counts_(edges_.size() + 1) {}

  void Observe(double value) {
    size_t bucket = 0;
    while (bucket < edges_.size() && value > edges_[bucket]) ++bucket;
    ++counts_[bucket];
    sum_ += value;
    ++count_;
  }

  const std::vector<double>& edges() const { return edges_; }      // upper bounds, inclusive
  const std::vector<uint64_t>& counts() const { return counts_; }  // one more: beyond the last
  double sum() const { return sum_; }
  uint64_t count() const { return count_; }

 private:
  std::vector<double> edges_;
  std::vector<uint64_t> counts_;
  double sum_ = 0;
  uint64_t count_ = 0;
};

}  // namespace tandem
