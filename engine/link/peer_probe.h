// Whether a transport's own collectives deliver the right sums, and how long they take.
#pragma once

#include <memory>
#include <span>

#include "engine/base/units.h"
#include "engine/device/device.h"
#include "engine/link/peer_link.h"
#include "engine/link/transport.h"

namespace tandem {

// The best of a few all-reduces of n values over all devices, waited for each time, on an f32 wire.
// Every sum is compared. Throws Error(kDevice) naming what came wrong, or did not come. Takes
// memory of the devices for as long as it runs.
Nanos TimeAllReduce(PeerLink& link, std::span<const std::unique_ptr<Device>> devices, uint64_t n);

// A few all-reduces of a decode row over all devices by a transport that carries them out itself,
// compared; nothing where it does not. Throws Error(kDevice) naming what came wrong.
void CheckSums(Transport& transport, std::span<const std::unique_ptr<Device>> devices);

}  // namespace tandem
