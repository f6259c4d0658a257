// Ops that fail or lie on command, around real ones.
#pragma once

#include <limits>
#include <memory>
#include <utility>

#include "engine/base/error.h"
#include "kernels/forwarding_ops.h"

namespace tandem::testing {

struct FaultPlan {
  int fail_matmul_in = -1;  // the product that throws, counted down from here; -1: none
  bool poison_head =
      false;  // the next product over the whole vocabulary has a NaN in its first row
  uint64_t vocab = 0;
};

class FaultOps final : public ForwardingOps {
 public:
  FaultOps(std::unique_ptr<Ops> inner, std::shared_ptr<FaultPlan> faults)
      : ForwardingOps(std::move(inner)), faults_(std::move(faults)) {}

  void MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) override {
    if (faults_->fail_matmul_in >= 0 && faults_->fail_matmul_in-- == 0) {
      Fail(ErrorCode::kDevice, "injected: the device fell off the bus");
    }
    Inner().MatMul(x, tasks);
    if (faults_->poison_head && tasks[0].slice.rows() == faults_->vocab) {
      tasks[0].y[17] = std::numeric_limits<float>::quiet_NaN();
      faults_->poison_head = false;
    }
  }

 private:
  std::shared_ptr<FaultPlan> faults_;
};

}  // namespace tandem::testing
