// The host's processor as a device that works on its own time, beside cards: each queue is a thread
// that does what it is asked in order, and its marks are what other queues wait for.
//
// Between it and a card: a queue here waits for a card's mark by being told of it
// (DeviceEvent::WhenPassed), which keeps no thread of the driver's waiting; a card's queue waits
// for a mark here by letting the asking thread wait, so nothing is asked of a card before it may
// run. Since everything is asked in list order, neither can come to a standstill.
//
// An exception of an item is kept, and everything after it in the queue is left out but its marks,
// whose Finish throws it; the queue's own Finish throws it too, and it is over.
//
// Its memory is the host's own. What cards copy from or to, the values and scratch of steps, is
// page-locked.
#pragma once

#include <memory>

#include "engine/device/device.h"

namespace tandem {

// `page_locked` is the host's memory that cards reach, and outlives the device.
std::unique_ptr<Device> MakeQueuedCpuDevice(DeviceId id, Bytes capacity, Device& page_locked);

}  // namespace tandem
