// Whether a path delivers the bytes it was given. Real rigs grant peer access and then deliver
// wrong sums with every indicator green, so values are compared, never flags: before a first run
// each path carries patterns of several sizes in each direction it will be used in.
//
//   SelfTestPath(*transport, d0, d1);   // throws Error(kDevice) naming path, direction and byte
#pragma once

#include "engine/device/device.h"
#include "engine/link/transport.h"

namespace tandem {

// Sends patterns from src to dst: one byte, a cache line less one, a page and an odd size beyond
// the staging buffer, each twice with different values so that stale bytes are caught; and where
// the transport has sends of its own, these too. Uses temporary memory of both devices.
void SelfTestPath(Transport& transport, Device& src, Device& dst);

}  // namespace tandem
