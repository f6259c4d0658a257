#include <ucontext.h>

#include <cstdint>

#include "tests/support/cuda_emulation/fiber.h"

namespace tandem::cuda {

struct Fiber::Context {
  ucontext_t inside, outside;

  // makecontext passes ints: the pointer comes in two halves.
  static void Start(unsigned high, unsigned low) {
    Fiber::Main(reinterpret_cast<void*>((static_cast<uintptr_t>(high) << 32) | low));
  }
};

Fiber::Fiber(void (*main)(void*), void* argument)
    : main_(main),
      argument_(argument),
      stack_(new std::byte[kFiberStackBytes]),
      context_(new Context) {
  getcontext(&context_->inside);
  context_->inside.uc_stack.ss_sp = stack_.get();
  context_->inside.uc_stack.ss_size = kFiberStackBytes;
  context_->inside.uc_link = nullptr;
  const auto bits = reinterpret_cast<uintptr_t>(this);
  makecontext(&context_->inside, reinterpret_cast<void (*)()>(Context::Start), 2,
              static_cast<unsigned>(bits >> 32), static_cast<unsigned>(bits));
}

Fiber::~Fiber() { End(); }

void Fiber::SwitchIn() { swapcontext(&context_->outside, &context_->inside); }
void Fiber::SwitchOut() { swapcontext(&context_->inside, &context_->outside); }

}  // namespace tandem::cuda
