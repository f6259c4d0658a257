// The emulated side of engine/link/cuda/native/peer_platform.h. Devices are host threads, and
// stores to memory that they share are held back: each comes to pass at some later time, in an
// order that is random but for the bytes of one place, unless a fence has it pass at once. So a
// flag that is stored without a fence arrives before what it stands for, now and then. What is not
// played are loads out of order.
#pragma once

#include <gpu_platform.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tandem::cuda {

// Holds a store of up to 16 bytes back, in units that arrive whole.
void StoreLate(void* to, const void* from, size_t bytes, size_t unit);
// Lets everything pass that a fence of this thread orders.
void FenceSystem();
void FenceSequential();
// A thread waits for another device: others of its block run, and other host threads.
void Pause();
bool BarrierOr(bool value);
uint64_t NowNanos();
// Everything passes: a kernel ends.
void FinishStores();

template <typename Args>
void LaunchPeer(const char* what, void (*kernel)(Args), uint32_t blocks, uint32_t threads,
                void* stream, const Args& args, uint32_t shared_bytes = 0) {
  struct Held {
    void (*kernel)(Args);
    Args args;
  };
  InStream(stream, what, [=, held = Held{kernel, args}]() mutable {
    RunGrid(
        dim3(blocks), dim3(threads), shared_bytes,
        [](void* context) {
          auto* call = static_cast<Held*>(context);
          call->kernel(call->args);
        },
        &held);
    FinishStores();
  });
}

struct Line {
  uint64_t low, high;
};
inline void StoreLine(void* to, Line line) { StoreLate(to, &line, sizeof line, 8); }
inline Line LoadLine(const void* from) {
  const auto* halves = static_cast<const uint64_t*>(from);
  return Line{__atomic_load_n(halves, __ATOMIC_RELAXED),
              __atomic_load_n(halves + 1, __ATOMIC_RELAXED)};
}
inline void StoreWord(uint32_t* to, uint32_t value) { StoreLate(to, &value, 4, 4); }
inline uint32_t LoadWord(const uint32_t* from) { return __atomic_load_n(from, __ATOMIC_RELAXED); }
inline void StoreLong(uint64_t* to, uint64_t value) { StoreLate(to, &value, 8, 8); }

template <typename T>
void StorePayload(void* to, T value) {
  StoreLate(to, &value, sizeof(T), 1);
}
template <typename T>
T LoadPayload(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

}  // namespace tandem::cuda
