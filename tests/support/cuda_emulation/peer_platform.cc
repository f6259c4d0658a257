#include "tests/support/cuda_emulation/peer_platform.h"

#include <array>
#include <chrono>
#include <vector>

namespace tandem::cuda {
namespace {

struct Store {
  std::byte* to;
  std::array<std::byte, 16> bytes;
  uint8_t size;
  uint8_t unit;
  unsigned thread;
  uint64_t epoch;  // barriers of its block before it
};

// Of the grid that a host thread runs.
struct Held {
  std::vector<Store> stores;
  uint64_t epoch = 0;
  unsigned arrived = 0;
  bool any[2] = {};
  uint32_t random = 1;

  uint32_t Random() {
    random = random * 1664525u + 1013904223u;
    return random >> 8;
  }
};

Held& TheHeld() {
  static thread_local Held held;
  return held;
}

void Pass(const Store& store) {
  if (store.unit == 8) {
    for (size_t i = 0; i < store.size; i += 8) {
      uint64_t value;
      std::memcpy(&value, store.bytes.data() + i, 8);
      __atomic_store_n(reinterpret_cast<uint64_t*>(store.to + i), value, __ATOMIC_RELEASE);
    }
  } else if (store.unit == 4) {
    uint32_t value;
    std::memcpy(&value, store.bytes.data(), 4);
    __atomic_store_n(reinterpret_cast<uint32_t*>(store.to), value, __ATOMIC_RELEASE);
  } else {
    std::memcpy(store.to, store.bytes.data(), store.size);
  }
}

// Stores for which `passes` holds, in order; those behind one to the same bytes that does not pass
// stay with it.
template <typename Passes>
void PassSome(Held& held, const Passes& passes) {
  size_t kept = 0;
  for (size_t i = 0; i < held.stores.size(); ++i) {
    const Store store = held.stores[i];
    bool goes = passes(store);
    for (size_t k = 0; goes && k < kept; ++k) {
      const Store& before = held.stores[k];
      goes = before.to + before.size <= store.to || store.to + store.size <= before.to;
    }
    if (goes) {
      Pass(store);
    } else {
      held.stores[kept++] = store;
    }
  }
  held.stores.resize(kept);
}

}  // namespace

void StoreLate(void* to, const void* from, size_t bytes, size_t unit) {
  Held& held = TheHeld();
  constexpr size_t kMost = 64;
  if (held.stores.size() >= kMost) {
    // Any of them, one in two.
    PassSome(held, [&](const Store&) { return held.Random() % 2 == 0; });
  }
  Store store{static_cast<std::byte*>(to), {},          static_cast<uint8_t>(bytes),
              static_cast<uint8_t>(unit),  threadIdx.x, held.epoch};
  std::memcpy(store.bytes.data(), from, bytes);
  held.stores.push_back(store);
}

void FenceSystem() {
  Held& held = TheHeld();
  PassSome(held, [&](const Store& store) {
    return store.thread == threadIdx.x || store.epoch < held.epoch;
  });
  __atomic_thread_fence(__ATOMIC_ACQ_REL);
}

void FenceSequential() {
  FenceSystem();
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void Pause() {
  Held& held = TheHeld();
  if (!held.stores.empty()) PassSome(held, [&](const Store&) { return held.Random() % 4 == 0; });
  Yield();
}

bool BarrierOr(bool value) {
  Held& held = TheHeld();
  const uint64_t epoch = held.epoch;
  held.any[epoch % 2] = held.any[epoch % 2] || value;
  if (++held.arrived == blockDim.x) {
    held.arrived = 0;
    held.any[(epoch + 1) % 2] = false;
    ++held.epoch;
  }
  BlockBarrier();
  return held.any[epoch % 2];
}

uint64_t NowNanos() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

void FinishStores() {
  PassSome(TheHeld(), [](const Store&) { return true; });
}

}  // namespace tandem::cuda
