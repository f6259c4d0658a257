// NVML as far as it is used here: declarations of our own, because the toolkit's packages do not
// always bring its header, and the library itself comes with the driver. Names and layouts are
// those of its C interface, which only grows (nvml.h of any driver since 450; the PCIe byte
// counters since 550).
#pragma once

#include <cstdint>

namespace tandem::nvml {

using Device = struct OpaqueDevice*;
using Status = int32_t;  // nvmlReturn_t
inline constexpr Status kSuccess = 0;

inline constexpr uint32_t kMostLinks = 36;  // of any GPU; links beyond those it has are refused
inline constexpr uint32_t kAllLinks = ~0u;  // scope of the NVLink counters
inline constexpr uint32_t kFieldNvlinkTx = 138;  // payload, KiB
inline constexpr uint32_t kFieldNvlinkRx = 139;
inline constexpr uint32_t kFieldPcieTx = 197;  // bytes, may wrap
inline constexpr uint32_t kFieldPcieRx = 198;

enum ValueType : int32_t {
  kDouble = 0,
  kUnsignedInt = 1,
  kUnsignedLong = 2,
  kUnsignedLongLong = 3,
  kSignedLongLong = 4,
  kSignedInt = 5,
  kUnsignedShort = 6,
};

struct FieldValue {
  uint32_t field = 0;
  uint32_t scope = 0;
  int64_t timestamp_us = 0;
  int64_t latency_us = 0;
  int32_t type = 0;  // ValueType
  Status status = 0;
  union {
    double f64;
    int32_t i32;
    uint32_t u32;
    uint64_t u64;
    int64_t i64;
    uint16_t u16;
  } value = {};
};
static_assert(sizeof(FieldValue) == 40);

struct PciInfo {
  char legacy_bus_id[16];
  uint32_t domain, bus, device, device_id, subsystem_id;
  char bus_id[32];
};
static_assert(sizeof(PciInfo) == 68);

enum RemoteType : int32_t { kRemoteGpu = 0, kRemoteNpu = 1, kRemoteSwitch = 2 };
enum Clock : int32_t { kClockSm = 1, kClockMemory = 2 };

// The library's functions; null where an older library lacks one.
struct Functions {
  Status (*Init)() = nullptr;      // nvmlInit_v2
  Status (*Shutdown)() = nullptr;  // nvmlShutdown
  const char* (*ErrorString)(Status) = nullptr;
  Status (*SystemGetDriverVersion)(char*, uint32_t) = nullptr;
  Status (*DeviceGetHandleByPciBusId)(const char*, Device*) = nullptr;  // _v2
  Status (*DeviceGetCurrPcieLinkGeneration)(Device, uint32_t*) = nullptr;
  Status (*DeviceGetCurrPcieLinkWidth)(Device, uint32_t*) = nullptr;
  Status (*DeviceGetMaxPcieLinkGeneration)(Device, uint32_t*) = nullptr;
  Status (*DeviceGetMaxPcieLinkWidth)(Device, uint32_t*) = nullptr;
  Status (*DeviceGetClockInfo)(Device, int32_t clock, uint32_t* mhz) = nullptr;
  Status (*DeviceGetMaxClockInfo)(Device, int32_t clock, uint32_t* mhz) = nullptr;
  Status (*DeviceGetPowerUsage)(Device, uint32_t* milliwatts) = nullptr;
  Status (*DeviceGetEnforcedPowerLimit)(Device, uint32_t* milliwatts) = nullptr;
  Status (*DeviceGetPowerManagementDefaultLimit)(Device, uint32_t* milliwatts) = nullptr;
  Status (*DeviceGetNvLinkState)(Device, uint32_t link, int32_t* active) = nullptr;
  Status (*DeviceGetNvLinkVersion)(Device, uint32_t link, uint32_t* version) = nullptr;
  Status (*DeviceGetNvLinkRemoteDeviceType)(Device, uint32_t link, int32_t* type) = nullptr;
  Status (*DeviceGetNvLinkRemotePciInfo)(Device, uint32_t link, PciInfo*) = nullptr;  // _v2
  Status (*DeviceGetFieldValues)(Device, int32_t count, FieldValue*) = nullptr;
  Status (*DeviceGetTopologyCommonAncestor)(Device, Device, int32_t* level) = nullptr;
};

}  // namespace tandem::nvml
