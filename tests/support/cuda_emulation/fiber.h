// A call stack of its own that is entered and left by hand. On x86-64 a switch is a dozen
// instructions; elsewhere it goes through ucontext, which asks the kernel for the signal mask.
#pragma once

#include <cstddef>
#include <memory>

namespace tandem::cuda {

class Fiber {
 public:
  // `main` never returns: it calls Leave() instead.
  Fiber(void (*main)(void*), void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void Enter();  // from outside: goes on where the fiber was left
  void Leave();  // from inside: goes on after the Enter() that came here

 private:
  struct Context;
  std::unique_ptr<std::byte[]> stack_;
  std::unique_ptr<Context> context_;
};

}  // namespace tandem::cuda
