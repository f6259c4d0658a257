// How long a test has computed, for tests that something is not quadratic or endless. Processor
// time, not wall time: a busy machine must not fail them.
//
//   const CpuTime spent;  ...;  EXPECT_LT(spent.Seconds(), 20.0);
#pragma once

#include <ctime>

namespace tandem {

class CpuTime {
 public:
  CpuTime() : begin_(std::clock()) {}
  double Seconds() const {
    return static_cast<double>(std::clock() - begin_) / static_cast<double>(CLOCKS_PER_SEC);
  }

 private:
  std::clock_t begin_;
};

}  // namespace tandem
