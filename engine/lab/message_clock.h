// How long a movement over a transport takes, on any back end: by marks in the devices' queues
// where they have some, else by the clock. Messages are asked as a step of the engine asks them:
// one by one, or, as in decode steps, recorded and replayed (LaunchMode).
//
// Holds two buffers of `largest` bytes on each device and in the host's memory, with numbers in
// them, for its life. One thread; nothing else runs on the back end.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/link/transport.h"
#include "engine/run/backend.h"
#include "engine/run/engine.h"

namespace tandem {

class MessageClock {
 public:
  // Throws Error(kDevice) where a device lacks the room.
  MessageClock(Backend& backend, Bytes largest);

  // Whether movements over it can be timed as replays.
  bool CanReplay(const Transport& transport) const;

  // All give the seconds of one of `repeats` movements in a row. Devices by index.
  //
  // From the moment that the source may send until the destination has all. On devices with queues
  // that is a round trip with a reply of kReply bytes, less the reply: half of a round trip of two.
  double OneWay(Transport& transport, size_t src, size_t dst, Bytes bytes, uint32_t repeats,
                LaunchMode launch = LaunchMode::kEager);
  // `bytes` in either direction at once, until both have arrived.
  double BothWays(Transport& transport, size_t a, size_t b, Bytes bytes, uint32_t repeats);
  // One-shot all-reduce of f32 values that take `bytes`, over two devices, adding included.
  double AllReduce(Transport& transport, size_t a, size_t b, Bytes bytes, uint32_t repeats,
                   LaunchMode launch = LaunchMode::kEager);
  // Over a transport between the host and devices, one copy behind the other.
  double FromHost(Transport& transport, size_t device, Bytes bytes, uint32_t repeats,
                  LaunchMode launch = LaunchMode::kEager);
  double ToHost(Transport& transport, size_t device, Bytes bytes, uint32_t repeats,
                LaunchMode launch = LaunchMode::kEager);
  double HostBothWays(Transport& transport, size_t device, Bytes bytes, uint32_t repeats);

  // Asks for `repeats` messages without waiting (on devices without queues they are done), and
  // gives the bytes that were booked as leaving the source; Finish waits. For what is read
  // meanwhile.
  Bytes AskOneWay(Transport& transport, size_t src, size_t dst, Bytes bytes, uint32_t repeats);
  Bytes AskFromHost(Transport& transport, size_t device, Bytes bytes, uint32_t repeats);
  void Finish();

  static constexpr Bytes kReply{64};

 private:
  struct Ends {
    Buffer send, receive;
  };
  double Timed(DeviceQueue* queue, uint32_t repeats, LaunchMode launch,
               const std::function<void()>& body);
  // What asking for `work` a second time, or replaying it, does.
  void Repeat(LaunchMode launch, const std::function<void()>& work);
  // Asks for them without waiting; the bytes that were booked as leaving the source.
  Bytes AskRepeatedly(Transport& transport, const CopyTask& task, uint32_t repeats);
  CopyTask Message(size_t src, size_t dst, Bytes bytes) const;
  CopyTask HostMessage(size_t device, bool to_host, Bytes bytes) const;
  DeviceQueue* Queue(size_t device, QueueRole role) const;

  Backend& backend_;
  std::vector<Ends> ends_;  // by device
  Ends host_;
  std::vector<Buffer> scratch_;  // of all-reduces, by device
  TrafficLedger ledger_;
};

}  // namespace tandem
