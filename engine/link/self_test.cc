#include "engine/link/self_test.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <vector>

#include "engine/base/error.h"
#include "engine/link/direct_collectives.h"

namespace tandem {
namespace {

constexpr std::array<uint64_t, 4> kSizes{1, 63, 4096, kSelfTestBytes - 1};

// Values of sends: within one thread's part, a decode row, and beyond what crosses as words.
constexpr std::array<uint64_t, 3> kSendSizes{3, 4096, 60001};
static_assert(4 * (kSendSizes.back() + 1) <= kSelfTestBytes);

// A byte that depends on the position, the size and the round, so that a shifted, truncated or
// stale message never looks right.
std::byte Pattern(uint64_t position, uint64_t size, uint64_t round) {
  uint64_t x = position * 0x9e3779b97f4a7c15u + size * 0xbf58476d1ce4e5b9u + round * 0x94d049bbu;
  x ^= x >> 29;
  return static_cast<std::byte>((x * 0xbf58476d1ce4e5b9u) >> 56);
}

void CheckMessage(Transport& transport, Device& src, Device& dst, const Buffer& from,
                  const Buffer& to, uint64_t size, uint64_t round) {
  std::vector<std::byte> sent(size);
  for (uint64_t i = 0; i < size; ++i) sent[i] = Pattern(i, size, round);
  src.Upload(from.data(), sent.data(), size);
  // The byte behind the message is a guard: a copy that runs over is wrong too.
  const auto guard = static_cast<std::byte>(0xa5 ^ round);
  std::vector<std::byte> received(size + 1, guard);
  dst.Upload(to.data(), received.data(), size + 1);
  TrafficLedger ledger;
  ledger.BeginStep(ProgramKind::kPrefill);
  ledger.BeginOp(0, OpKind::kTransfer, BlockId{0}, WireType::kF32);
  DeviceQueue* const src_queue = src.queue(QueueRole::kComm);
  DeviceQueue* const dst_queue = dst.queue(QueueRole::kComm);
  transport.Copy(CopyTask{.src = src.id(),
                          .from = from.data(),
                          .dst = dst.id(),
                          .to = to.data(),
                          .row_bytes = size,
                          .src_queue = src_queue,
                          .dst_queue = dst_queue},
                 ledger);
  for (DeviceQueue* queue : {src_queue, dst_queue}) {
    if (queue != nullptr) queue->Finish();
  }
  dst.Download(received.data(), to.data(), size + 1);
  for (uint64_t i = 0; i <= size; ++i) {
    const std::byte want = i < size ? sent[i] : guard;
    if (received[i] == want) continue;
    Fail(ErrorCode::kDevice,
         fmt::format("link self-test: path {} from {} to {}: byte {} of a message of {} arrived as "
                     "{:#04x} (want {:#04x}); do not trust this path: choose another with --path",
                     ToString(transport.path()), src.name(), dst.name(), i, size,
                     static_cast<unsigned>(received[i]), static_cast<unsigned>(want)));
  }
}

// Values whose bits are those of patterns, but never NaN: these may change on their way.
std::vector<float> PatternValues(uint64_t n, uint64_t round) {
  std::vector<float> values(n);
  for (uint64_t i = 0; i < n; ++i) {
    uint32_t bits = 0;
    for (uint64_t b = 0; b < 4; ++b) {
      bits |= static_cast<uint32_t>(Pattern(4 * i + b, n, round)) << (8 * b);
    }
    bits &= 0xbfffffffu;
    std::memcpy(&values[i], &bits, sizeof bits);
  }
  return values;
}

// What the transport carries by kernels of its own.
void CheckSend(Transport& transport, Device& src, Device& dst, const Buffer& from, const Buffer& to,
               uint64_t n, uint64_t round) {
  const std::vector<float> sent = PatternValues(n, round);
  src.Upload(from.data(), reinterpret_cast<const std::byte*>(sent.data()), 4 * n);
  std::vector<float> received(n + 1, -1.0f);
  dst.Upload(to.data(), reinterpret_cast<const std::byte*>(received.data()), 4 * (n + 1));
  TrafficLedger ledger;
  ledger.BeginStep(ProgramKind::kPrefill);
  ledger.BeginOp(0, OpKind::kTransfer, BlockId{0}, WireType::kF32);
  const DirectEnd src_end{
      .device = src.id(), .in = from.as<float>(), .queue = src.queue(QueueRole::kComm)};
  const DirectEnd dst_end{
      .device = dst.id(), .out = to.as<float>(), .queue = dst.queue(QueueRole::kComm)};
  transport.direct()->Send(WireType::kF32, src_end, dst_end, n, ledger);
  src_end.queue->Finish();
  dst_end.queue->Finish();
  if (const auto failure = transport.TakeFailure()) Fail(ErrorCode::kDevice, failure->what);
  dst.Download(reinterpret_cast<std::byte*>(received.data()), to.data(), 4 * (n + 1));
  for (uint64_t i = 0; i <= n; ++i) {
    const float want = i < n ? sent[i] : -1.0f;
    if (std::memcmp(&received[i], &want, sizeof want) == 0) continue;
    Fail(
        ErrorCode::kDevice,
        fmt::format("link self-test: path {} from {} to {}: value {} of a send of {} arrived as {} "
                    "(want {}); do not trust this path: choose another with --path",
                    ToString(transport.path()), src.name(), dst.name(), i, n, received[i], want));
  }
}

}  // namespace

void SelfTestPath(Transport& transport, Device& src, Device& dst) {
  const Bytes room{kSelfTestBytes};
  const Buffer from = src.Allocate(MemoryUse::kWorkspace, room, "link self-test");
  const Buffer to = dst.Allocate(MemoryUse::kWorkspace, room, "link self-test");
  for (uint64_t size : kSizes) {
    for (uint64_t round = 0; round < 2; ++round) {
      CheckMessage(transport, src, dst, from, to, size, round);
    }
  }
  if (transport.direct() == nullptr) return;
  for (uint64_t n : kSendSizes) {
    if (!transport.direct()->TakesSend(WireType::kF32, n)) continue;
    for (uint64_t round = 0; round < 3; ++round) {
      CheckSend(transport, src, dst, from, to, n, round);
    }
  }
}

}  // namespace tandem
