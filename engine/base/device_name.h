// "d0" for device 0, "host" for the host's memory: one spelling in plans, tables, records and metrics.
#pragma once

#include <string>

#include "engine/base/units.h"

namespace tandem {

std::string DeviceName(DeviceId device);

}  // namespace tandem
