// What the kernel benchmarks share: a back end with its team, random weights in its layout, and
// probes of how fast the same threads read memory and multiply at the same moment. Machines differ
// and have neighbours, so a kernel's speed is told as a share of the probe that bounds it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/device/cpu/cpu_device.h"
#include "kernels/cpu/probe_loops.h"
#include "kernels/ops.h"

namespace tandem {

struct BenchRig {
  std::shared_ptr<ThreadPool> pool;
  std::unique_ptr<CpuDevice> device;
  std::unique_ptr<Ops> ops;
};
// Every core of this process when `threads` is 0.
BenchRig MakeBenchRig(int threads, ActivationType activations, const std::string& tier = "auto");

// A packed matrix of random stored bytes with small scales: finite, and dense in every bit.
struct BenchMatrix {
  Buffer memory;
  PackedMatrix matrix;
};
BenchMatrix MakeBenchMatrix(BenchRig& rig, DType type, uint64_t rows, uint64_t cols);

std::vector<float> BenchRows(uint64_t n, uint64_t cols);

// Seconds that the team takes to read `bytes` (at most the probe's size) once.
class ReadProbe {
 public:
  ReadProbe(BenchRig& rig, uint64_t bytes);
  double Seconds();

 private:
  ThreadPool& pool_;
  ProbeLoops loops_;
  Buffer memory_;
};

// Operations a second, a multiply-add counting as two, that the team does in registers with the
// best instructions of this processor.
class ArithmeticProbe {
 public:
  ArithmeticProbe(BenchRig& rig, ArithmeticKind kind);
  double OpsPerSecond();

 private:
  ThreadPool& pool_;
  ProbeLoops loops_;
  uint64_t iterations_;
};
ArithmeticKind ArithmeticOf(ActivationType activations, DType type);

double SecondsNow();  // monotonic
double Median(std::vector<double> values);

}  // namespace tandem
