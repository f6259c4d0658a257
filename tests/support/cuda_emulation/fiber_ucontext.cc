#include <ucontext.h>

#include <cstdint>

#include "tests/support/cuda_emulation/fiber.h"

namespace tandem::cuda {
namespace {

constexpr size_t kStackBytes = 64 << 10;

}  // namespace

struct Fiber::Context {
  ucontext_t inside, outside;
  void (*main)(void*);
  void* argument;

  // makecontext passes ints: the pointer comes in two halves.
  static void Start(unsigned high, unsigned low) {
    auto* self = reinterpret_cast<Context*>((static_cast<uintptr_t>(high) << 32) | low);
    self->main(self->argument);
  }
};

Fiber::Fiber(void (*main)(void*), void* argument)
    : stack_(new std::byte[kStackBytes]), context_(new Context) {
  context_->main = main;
  context_->argument = argument;
  getcontext(&context_->inside);
  context_->inside.uc_stack.ss_sp = stack_.get();
  context_->inside.uc_stack.ss_size = kStackBytes;
  context_->inside.uc_link = nullptr;
  const auto bits = reinterpret_cast<uintptr_t>(context_.get());
  makecontext(&context_->inside, reinterpret_cast<void (*)()>(Context::Start), 2,
              static_cast<unsigned>(bits >> 32), static_cast<unsigned>(bits));
}
Fiber::~Fiber() = default;

void Fiber::Enter() { swapcontext(&context_->outside, &context_->inside); }
void Fiber::Leave() { swapcontext(&context_->inside, &context_->outside); }

}  // namespace tandem::cuda
