#include "engine/lab/message_clock.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "engine/link/collectives.h"

namespace tandem {
namespace {

constexpr std::array kRoles{QueueRole::kCompute, QueueRole::kCopyIn, QueueRole::kCopyOut,
                            QueueRole::kComm};
constexpr const char* kWhat = "rig probe";

// Pages that were never written may all be one page of zeros.
void FillBuffer(Device& device, const Buffer& buffer, const std::vector<std::byte>& pattern) {
  device.Upload(buffer.data(), pattern.data(), buffer.size());
}

Bytes BookedFrom(const TrafficLedger& ledger, DeviceId src) {
  Bytes total;
  for (const HopRow& row : ledger.rows()) {
    if (row.src == src) total += row.bytes;
  }
  return total;
}

}  // namespace

MessageClock::MessageClock(Backend& backend, Bytes largest) : backend_(backend) {
  std::vector<std::byte> pattern(largest.value);
  for (size_t i = 0; i < pattern.size(); ++i) {
    pattern[i] = static_cast<std::byte>((i * 0x9e3779b97f4a7c15u) >> 56);
  }
  const auto make = [&](Device& device) {
    Ends ends{.send = device.Allocate(MemoryUse::kWorkspace, largest, kWhat),
              .receive = device.Allocate(MemoryUse::kWorkspace, largest, kWhat)};
    FillBuffer(device, ends.send, pattern);
    FillBuffer(device, ends.receive, pattern);
    return ends;
  };
  for (const auto& device : backend.devices()) {
    ends_.push_back(make(*device));
    scratch_.push_back(device->Allocate(MemoryUse::kWorkspace, Bytes{kStagingChunk}, kWhat));
  }
  host_ = make(backend.host());
  ledger_.BeginStep(ProgramKind::kDecode);
  ledger_.BeginOp(0, OpKind::kTransfer, BlockId{0}, WireType::kF32);
}

DeviceQueue* MessageClock::Queue(size_t device, QueueRole role) const {
  return backend_.devices()[device]->queue(role);
}

CopyTask MessageClock::Message(size_t src, size_t dst, Bytes bytes) const {
  return CopyTask{.src = backend_.devices()[src]->id(),
                  .from = ends_[src].send.data(),
                  .dst = backend_.devices()[dst]->id(),
                  .to = ends_[dst].receive.data(),
                  .row_bytes = bytes.value,
                  .src_queue = Queue(src, QueueRole::kComm),
                  .dst_queue = Queue(dst, QueueRole::kComm)};
}

CopyTask MessageClock::HostMessage(size_t device, bool to_host, Bytes bytes) const {
  const DeviceId id = backend_.devices()[device]->id();
  if (to_host) {
    return CopyTask{.src = id,
                    .from = ends_[device].send.data(),
                    .dst = kHost,
                    .to = host_.receive.data(),
                    .row_bytes = bytes.value,
                    .src_queue = Queue(device, QueueRole::kCopyOut)};
  }
  return CopyTask{.src = kHost,
                  .from = host_.send.data(),
                  .dst = id,
                  .to = ends_[device].receive.data(),
                  .row_bytes = bytes.value,
                  .dst_queue = Queue(device, QueueRole::kCopyIn)};
}

void MessageClock::Finish() {
  for (const auto& device : backend_.devices()) {
    for (QueueRole role : kRoles) {
      if (DeviceQueue* queue = device->queue(role)) queue->Finish();
    }
  }
}

bool MessageClock::CanReplay(const Transport& transport) const {
  return backend_.recorder() != nullptr && transport.recordable();
}

void MessageClock::Repeat(LaunchMode launch, const std::function<void()>& work) {
  if (launch == LaunchMode::kEager) return work();
  QueueRecorder& recorder = *backend_.recorder();
  std::unique_ptr<Recording> recording;
  recorder.Begin();
  try {
    work();
    recording = recorder.End();
  } catch (...) {
    recorder.Abandon();
    throw;
  }
  // The first replay of a recording may set up what later ones need not.
  for (int i = 0; i < 2; ++i) {
    recording->Replay();
    Finish();
  }
}

double MessageClock::Timed(DeviceQueue* queue, uint32_t repeats, LaunchMode launch,
                           const std::function<void()>& body) {
  if (queue == nullptr) {
    const auto start = std::chrono::steady_clock::now();
    for (uint32_t i = 0; i < repeats; ++i) body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
           repeats;
  }
  const auto begin = queue->MakeEvent(), end = queue->MakeEvent();
  Repeat(launch, [&] {
    queue->Mark(*begin);
    for (uint32_t i = 0; i < repeats; ++i) body();
    queue->Mark(*end);
  });
  Finish();
  return end->Since(*begin).Seconds() / repeats;
}

double MessageClock::OneWay(Transport& transport, size_t src, size_t dst, Bytes bytes,
                            uint32_t repeats, LaunchMode launch) {
  const CopyTask there = Message(src, dst, bytes), reply = Message(dst, src, kReply);
  DeviceQueue* const queue = there.src_queue;
  if (queue == nullptr) {
    return Timed(queue, repeats, launch, [&] { transport.Copy(there, ledger_); });
  }
  const CopyTask small = Message(src, dst, kReply);
  const auto round_trip = [&](const CopyTask& first) {
    return Timed(queue, repeats, launch, [&] {
      transport.Copy(first, ledger_);
      transport.Copy(reply, ledger_);
    });
  };
  const double least = round_trip(small) / 2;
  return std::max(round_trip(there) - least, 1e-9);
}

double MessageClock::BothWays(Transport& transport, size_t a, size_t b, Bytes bytes,
                              uint32_t repeats) {
  const std::array tasks{Message(a, b, bytes), Message(b, a, bytes)};
  return Timed(tasks[0].src_queue, repeats, LaunchMode::kEager,
               [&] { transport.CopyAll(tasks, ledger_); });
}

double MessageClock::AllReduce(Transport& transport, size_t a, size_t b, Bytes bytes,
                               uint32_t repeats, LaunchMode launch) {
  std::array<CollectiveRank, 2> ranks;
  for (size_t r = 0; r < 2; ++r) {
    const size_t device = r == 0 ? a : b;
    ranks[r] = CollectiveRank{.device = backend_.devices()[device]->id(),
                              .in = ends_[device].send.as<float>(),
                              .out = ends_[device].receive.as<float>(),
                              .scratch = scratch_[device].data(),
                              .queue = Queue(device, QueueRole::kComm),
                              .wire_ops = &backend_.wire_ops(device)};
  }
  const CollectiveContext context{.transport = &transport,
                                  .ledger = &ledger_,
                                  .wire = WireType::kF32,
                                  .scratch_bytes = kStagingChunk};
  return Timed(ranks[0].queue, repeats, launch, [&] {
    tandem::AllReduce(context, Algorithm::kOneShot, ranks, bytes.value / sizeof(float));
  });
}

double MessageClock::FromHost(Transport& transport, size_t device, Bytes bytes, uint32_t repeats,
                              LaunchMode launch) {
  const CopyTask task = HostMessage(device, false, bytes);
  return Timed(task.dst_queue, repeats, launch, [&] { transport.Copy(task, ledger_); });
}

double MessageClock::ToHost(Transport& transport, size_t device, Bytes bytes, uint32_t repeats,
                            LaunchMode launch) {
  const CopyTask task = HostMessage(device, true, bytes);
  return Timed(task.src_queue, repeats, launch, [&] { transport.Copy(task, ledger_); });
}

double MessageClock::HostBothWays(Transport& transport, size_t device, Bytes bytes,
                                  uint32_t repeats) {
  const CopyTask in = HostMessage(device, false, bytes), out = HostMessage(device, true, bytes);
  if (in.dst_queue == nullptr) {
    return Timed(nullptr, repeats, LaunchMode::kEager, [&] {
      transport.Copy(in, ledger_);
      transport.Copy(out, ledger_);
    });
  }
  // The queue of what goes out starts and ends within the marks of the other.
  const auto begin = in.dst_queue->MakeEvent(), end = in.dst_queue->MakeEvent();
  const auto out_done = out.src_queue->MakeEvent();
  in.dst_queue->Mark(*begin);
  out.src_queue->WaitFor(*begin);
  for (uint32_t i = 0; i < repeats; ++i) {
    transport.Copy(in, ledger_);
    transport.Copy(out, ledger_);
  }
  out.src_queue->Mark(*out_done);
  in.dst_queue->WaitFor(*out_done);
  in.dst_queue->Mark(*end);
  Finish();
  return end->Since(*begin).Seconds() / repeats;
}

Bytes MessageClock::AskRepeatedly(Transport& transport, const CopyTask& task, uint32_t repeats) {
  ledger_.BeginStep(ProgramKind::kDecode);
  ledger_.BeginOp(0, OpKind::kTransfer, BlockId{0}, WireType::kF32);
  for (uint32_t i = 0; i < repeats; ++i) transport.Copy(task, ledger_);
  return BookedFrom(ledger_, task.src);
}

Bytes MessageClock::AskOneWay(Transport& transport, size_t src, size_t dst, Bytes bytes,
                              uint32_t repeats) {
  return AskRepeatedly(transport, Message(src, dst, bytes), repeats);
}

Bytes MessageClock::AskFromHost(Transport& transport, size_t device, Bytes bytes,
                                uint32_t repeats) {
  return AskRepeatedly(transport, HostMessage(device, false, bytes), repeats);
}

}  // namespace tandem
