// Ops whose every call makes their GPU the thread's current one first: the executor's one thread
// asks several.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "kernels/forwarding_ops.h"

namespace tandem {

class OnGpu final : public ForwardingOps {
 public:
  OnGpu(std::unique_ptr<Ops> inner, std::function<void()> make_current)
      : ForwardingOps(std::move(inner)), make_current_(std::move(make_current)) {}

 private:
  Ops& Inner() override {
    make_current_();
    return ForwardingOps::Inner();
  }

  const std::function<void()> make_current_;
};

}  // namespace tandem
