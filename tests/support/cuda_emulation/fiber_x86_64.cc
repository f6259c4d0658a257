// What a function call keeps on x86-64 (System V): rbx, rbp, r12 to r15, and the stack pointer.
// The control words of the floating-point units are the same on both sides.
#include <cstdint>

#include "tests/support/cuda_emulation/fiber.h"

namespace tandem::cuda {
namespace {

// Pushes the caller's registers, stores its stack pointer in *from and takes up `to`.
extern "C" void TandemSwitchStack(void** from, void* to);
asm(R"(
.text
.globl TandemSwitchStack
.type TandemSwitchStack, @function
TandemSwitchStack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size TandemSwitchStack, .-TandemSwitchStack
)");

}  // namespace

struct Fiber::Context {
  void* inside = nullptr;
  void* outside = nullptr;
};

namespace {

// The first switch into a fiber returns here; rbx and r12 hold what it shall call.
extern "C" void TandemFiberStart();
asm(R"(
.text
.globl TandemFiberStart
.type TandemFiberStart, @function
TandemFiberStart:
  movq %r12, %rdi
  callq *%rbx
  ud2
.size TandemFiberStart, .-TandemFiberStart
)");

}  // namespace

Fiber::Fiber(void (*main)(void*), void* argument)
    : main_(main),
      argument_(argument),
      stack_(new std::byte[kFiberStackBytes]),
      context_(new Context) {
  uintptr_t top = reinterpret_cast<uintptr_t>(stack_.get() + kFiberStackBytes) / 16 * 16;
  // One word more than the frame: a call finds the stack aligned to 16 bytes.
  auto* frame = reinterpret_cast<uintptr_t*>(top) - 9;
  // As TandemSwitchStack pops them: r15, r14, r13, r12, rbx, rbp, the address to return to.
  frame[0] = frame[1] = frame[2] = 0;
  frame[3] = reinterpret_cast<uintptr_t>(this);
  frame[4] = reinterpret_cast<uintptr_t>(&Fiber::Main);
  frame[5] = 0;
  frame[6] = reinterpret_cast<uintptr_t>(&TandemFiberStart);
  frame[7] = 0;
  context_->inside = frame;
}

Fiber::~Fiber() { End(); }

void Fiber::SwitchIn() { TandemSwitchStack(&context_->outside, context_->inside); }
void Fiber::SwitchOut() { TandemSwitchStack(&context_->inside, context_->outside); }

}  // namespace tandem::cuda
