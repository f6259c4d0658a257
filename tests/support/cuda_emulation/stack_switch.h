// What AddressSanitizer is told when a thread goes from stack to stack, so that it knows whose
// frames it sees and does not take a fiber's for memory behind the thread's stack. Nothing in other
// builds.
//
//   outside:  Entering(bottom, bytes); <switch>; Returned();
//   inside:   Entered(); ... Leaving(); <switch>; Entered(); ... Ending(); <switch, for good>
#pragma once

#include <cstddef>

#include "engine/base/sanitizers.h"

// In the sanitizer's runtime: declared here for compilers whose headers for it are not installed.
extern "C" {
void __sanitizer_start_switch_fiber(void** kept, const void* bottom, size_t bytes);
void __sanitizer_finish_switch_fiber(void* kept, const void** bottom, size_t* bytes);
}

namespace tandem::cuda {

// Instrumented frames are several times as large.
inline constexpr size_t kFiberStackBytes = (kAddressSanitizer ? 192 : 64) << 10;

class StackSwitch {
 public:
  void Entering(const void* bottom, size_t bytes) {
    if constexpr (kAddressSanitizer) __sanitizer_start_switch_fiber(&outside_, bottom, bytes);
  }
  void Returned() {
    if constexpr (kAddressSanitizer) __sanitizer_finish_switch_fiber(outside_, nullptr, nullptr);
  }
  void Entered() {
    if constexpr (kAddressSanitizer) {
      __sanitizer_finish_switch_fiber(inside_, &outside_bottom_, &outside_bytes_);
    }
  }
  void Leaving() {
    if constexpr (kAddressSanitizer) {
      __sanitizer_start_switch_fiber(&inside_, outside_bottom_, outside_bytes_);
    }
  }
  // As Leaving, and what the sanitizer keeps of the fiber's frames goes.
  void Ending() {
    if constexpr (kAddressSanitizer) {
      __sanitizer_start_switch_fiber(nullptr, outside_bottom_, outside_bytes_);
    }
  }

 private:
  // The sanitizer's own record of the frames of either side, while the other runs.
  void* inside_ = nullptr;
  void* outside_ = nullptr;
  const void* outside_bottom_ = nullptr;
  size_t outside_bytes_ = 0;
};

}  // namespace tandem::cuda
