// The functions of NCCL that the engine calls, over the emulated machine: sends and receives of a
// group are matched when it ends, and each pair is a copy that both streams wait for.
#include <nccl.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "tests/support/emulated_gpus/machine.h"

struct ncclComm {
  int rank = 0;
  int device = 0;
};

namespace {

using tandem::emulated::Event;
using tandem::emulated::EventState;
using tandem::emulated::Stream;

struct Message {
  int from = 0, to = 0;
  const void* source = nullptr;
  void* target = nullptr;
  size_t bytes = 0;
  Stream* stream = nullptr;
};

thread_local int depth = 0;
thread_local std::vector<Message> sends, receives;

Event MakeEvent(int device) {
  auto event = std::make_shared<EventState>();
  event->device = device;
  return event;
}

ncclResult_t Match() {
  for (const Message& receive : receives) {
    const auto send = std::find_if(sends.begin(), sends.end(), [&](const Message& s) {
      return s.from == receive.from && s.to == receive.to;
    });
    // The real library would wait for ever.
    if (send == sends.end() || send->bytes != receive.bytes) return ncclInvalidUsage;
    const Event ready = MakeEvent(send->stream->device());
    const Event taken = MakeEvent(receive.stream->device());
    tandem::emulated::Mark(*send->stream, ready);
    tandem::emulated::WaitFor(*receive.stream, ready);
    receive.stream->Put([to = receive.target, from = send->source, bytes = receive.bytes] {
      std::memcpy(to, from, bytes);
    });
    tandem::emulated::Mark(*receive.stream, taken);
    tandem::emulated::WaitFor(*send->stream, taken);
    sends.erase(send);
  }
  receives.clear();
  if (!sends.empty()) return ncclInvalidUsage;
  return ncclSuccess;
}

ncclResult_t Ask(std::vector<Message>& messages, const Message& message) {
  if (message.stream == nullptr) return ncclInvalidArgument;
  messages.push_back(message);
  return depth > 0 ? ncclSuccess : Match();
}

}  // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t status) {
  return status == ncclSuccess ? "no error" : "error of the emulated NCCL";
}
const char* ncclGetLastError(ncclComm_t) { return ""; }

ncclResult_t ncclCommInitAll(ncclComm_t* comms, int n, const int* devices) {
  for (int rank = 0; rank < n; ++rank) comms[rank] = new ncclComm{rank, devices[rank]};
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclGroupStart() {
  ++depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() { return --depth > 0 ? ncclSuccess : Match(); }

ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return Ask(sends, {comm->rank, peer, from, nullptr, count, reinterpret_cast<Stream*>(stream)});
}
ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return Ask(receives, {peer, comm->rank, nullptr, to, count, reinterpret_cast<Stream*>(stream)});
}

}  // extern "C"
