#include "engine/base/device_name.h"

namespace tandem {

std::string DeviceName(DeviceId device) {
  return device.IsHost() ? "host" : "d" + std::to_string(device.value);
}

}  // namespace tandem
