#include "tests/support/cuda_emulation/fiber.h"

namespace tandem::cuda {

// A fiber that is left for good is entered once more, to take its leave of the sanitizer.
void Fiber::End() {
  ends_ = true;
  if (kAddressSanitizer && started_) Enter();
}

void Fiber::Main(void* self) {
  auto* fiber = static_cast<Fiber*>(self);
  fiber->switch_.Entered();
  fiber->main_(fiber->argument_);
}

void Fiber::Enter() {
  started_ = true;
  switch_.Entering(stack_.get(), kFiberStackBytes);
  SwitchIn();
  switch_.Returned();
}

void Fiber::Leave() {
  switch_.Leaving();
  SwitchOut();
  switch_.Entered();
  if (!ends_) return;
  switch_.Ending();
  SwitchOut();
}

}  // namespace tandem::cuda
