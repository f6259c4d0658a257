// How bytes get from one device's memory to another's. One implementation a mechanism: `local`
// (a memcpy) and `host_staged` (two hops through a staging buffer in the host's memory) on the CPU;
// the CUDA ones stand behind the same interface.
//
// A transport books every hop it makes, with the bytes that it moved, in the ledger it is handed.
// The path it books may be a rig's own (p2p) while the mechanism is the CPU's memcpy standing in
// for it.
//
// Used by one thread at a time, the executor's. Between devices that work on their own time a copy
// takes its place in the queues of both its ends: it comes after all that either was asked before,
// and all that either is asked later comes after it. The CPU's copies are complete on return.
//
//   auto local = MakeTransport(PathKind::kLocal, PathKind::kP2p, nullptr);
//   local->Copy({.src = d0, .from = a, .dst = d1, .to = b, .row_bytes = 4096}, ledger);
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "engine/base/units.h"
#include "engine/device/device.h"
#include "engine/link/traffic_ledger.h"
#include "engine/plan/memory.h"
#include "engine/rig/rig.h"

namespace tandem {

// `rows` runs of `row_bytes`, strides in bytes; one contiguous run is rows = 1.
struct CopyTask {
  DeviceId src;
  const std::byte* from = nullptr;
  DeviceId dst;
  std::byte* to = nullptr;
  uint64_t row_bytes = 0;
  uint64_t rows = 1;
  uint64_t src_stride = 0;
  uint64_t dst_stride = 0;
  // Bytes of padding among those moved (packed panels), left out of what is booked.
  uint64_t padding_bytes = 0;
  // Where the ends keep their order; null of the host, and of devices without queues.
  DeviceQueue* src_queue = nullptr;
  DeviceQueue* dst_queue = nullptr;

  uint64_t bytes() const { return row_bytes * rows; }
};

// What a transport's kernels met on the devices: they gave up waiting for one another.
struct TransportFailure {
  uint32_t op = 0;   // index in the program of the op that they moved for
  std::string what;  // who waited for whom, and how long
};

class DirectCollectives;

class Transport {
 public:
  virtual ~Transport() = default;

  // What moves the bytes here.
  virtual PathKind mechanism() const = 0;
  // What is booked: the rig's path that the mechanism stands for.
  virtual PathKind path() const = 0;
  // Whether what it asks of queues may be recorded and replayed (engine/device/recorder.h), so that
  // every replay moves what lies at the same addresses then. A step is cut where it may not.
  virtual bool recordable() const { return false; }
  // Moves and books nothing for a task without bytes. Throws Error(kDevice) when the path fails.
  virtual void Copy(const CopyTask& task, TrafficLedger& ledger) = 0;
  // Several at once: none reads or writes what another writes, so they may run in any order and
  // side by side, both directions of a link among them.
  virtual void CopyAll(std::span<const CopyTask> tasks, TrafficLedger& ledger);

  // The collectives that it carries out itself; null where all are made of copies.
  virtual DirectCollectives* direct() { return nullptr; }
  // For the end of a step, all queues empty: what went wrong in it without anybody having thrown.
  // The transport can be used again.
  virtual std::optional<TransportFailure> TakeFailure() { return std::nullopt; }
  // Whether small sums cross memory that a library has mapped for all devices: "granted",
  // "refused (why)", "off"; empty where a transport knows no such thing.
  virtual std::string windows() const { return {}; }
  // More of the mechanism, for people: "push", "as link pcie4-x16". May be empty.
  virtual std::string detail() const { return {}; }
};

// Aborts on a task that no transport can mean.
void CheckCopyTask(const CopyTask& task);

// For devices without queues. `mechanism` is kLocal or kHostStaged here; `stands_for` is what it
// books (kLocal for itself). `host` gives kHostStaged its staging buffer (kStagingChunk bytes) and
// may be null for kLocal.
std::unique_ptr<Transport> MakeTransport(PathKind mechanism, PathKind stands_for, Device* host);

// Messages longer than this cross the staging buffer in pieces.
inline constexpr uint64_t kStagingChunk = kHostStagingBytes;

// The CPU's mechanism for a path of a rig: host_staged for itself, local for all others.
PathKind CpuMechanism(PathKind path);

}  // namespace tandem
