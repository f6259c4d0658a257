// A call stack of its own that is entered and left by hand. On x86-64 a switch is a dozen
// instructions; elsewhere it goes through ucontext, which asks the kernel for the signal mask.
#pragma once

#include <cstddef>
#include <memory>

#include "tests/support/cuda_emulation/stack_switch.h"

namespace tandem::cuda {

class Fiber {
 public:
  // `main` never returns: it calls Leave() instead.
  Fiber(void (*main)(void*), void* argument);
  // By the thread that entered it last. What its frames hold is not destroyed.
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void Enter();  // from outside: goes on where the fiber was left
  void Leave();  // from inside: goes on after the Enter() that came here

 private:
  struct Context;
  static void Main(void* self);
  void End();
  void SwitchIn();
  void SwitchOut();

  void (*main_)(void*);
  void* argument_;
  std::unique_ptr<std::byte[]> stack_;
  std::unique_ptr<Context> context_;
  StackSwitch switch_;
  bool started_ = false;
  bool ends_ = false;
};

}  // namespace tandem::cuda
