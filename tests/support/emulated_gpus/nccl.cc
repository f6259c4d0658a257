// The functions of NCCL that the engine calls, over the emulated machine: sends and receives of a
// group are matched when it ends, and each pair is a copy that both streams wait for; so are the
// ranks of a gather.
//
// Of windows it holds its callers to what nccl.h and NCCL's documentation say: all ranks of a
// communicator register in one group, the same size of memory from ncclMemAlloc on their own
// device; handles are there when the group has ended; what a collective works on lies at the same
// offset of every rank's window; windows are given back before their memory and their communicator.
// A caller that does not is stopped, where the real library might hang or write elsewhere.
//
// TANDEM_EMULATED_NCCL_WINDOWS: "granted" (the default), "none" (success, without a handle, as
// where GPUs do not reach one another), "error" (registering fails, and the communicators with it).
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/check.h"
#include "tests/support/emulated_gpus/machine.h"
#include "tests/support/emulated_gpus/nccl_counts.h"

struct ncclWindow_vidmem {
  ncclComm* comm = nullptr;
  std::byte* begin = nullptr;
  size_t size = 0;
};

// The communicators of one ncclCommInitAll.
struct Clique {
  size_t ranks = 0;
  bool broken = false;
  std::atomic<bool> aborted{false};
};

struct ncclComm {
  int rank = 0;
  int device = 0;
  std::shared_ptr<Clique> clique;
  std::set<ncclWindow_t> windows;
};

namespace {

using tandem::Check;
using tandem::emulated::CurrentDevice;
using tandem::emulated::Event;
using tandem::emulated::EventState;
using tandem::emulated::Machine;
using tandem::emulated::NcclCounts;
using tandem::emulated::NcclFaults;
using tandem::emulated::Place;
using tandem::emulated::Stream;

struct Message {
  int from = 0, to = 0;
  const void* source = nullptr;
  void* target = nullptr;
  size_t bytes = 0;
  Stream* stream = nullptr;
  std::shared_ptr<Clique> clique;
};

struct Gather {
  ncclComm* comm = nullptr;
  const std::byte* source = nullptr;
  std::byte* target = nullptr;
  size_t bytes = 0;
  Stream* stream = nullptr;
};

struct Registering {
  ncclComm* comm = nullptr;
  std::byte* begin = nullptr;
  size_t size = 0;
  ncclWindow_t* window = nullptr;
};

thread_local int depth = 0;
thread_local ncclResult_t group_error = ncclSuccess;  // the first of the group under way
thread_local std::vector<Message> sends, receives;
thread_local std::vector<Gather> gathers;
thread_local std::vector<Registering> registering;

struct Allocation {
  int device = 0;
  size_t size = 0;
};
std::map<std::byte*, Allocation>& Allocations() {
  static std::map<std::byte*, Allocation> allocations;
  return allocations;
}

std::string WindowsAre() {
  const char* value = std::getenv("TANDEM_EMULATED_NCCL_WINDOWS");
  return value == nullptr ? "granted" : value;
}

Event MakeEvent(int device) {
  auto event = std::make_shared<EventState>();
  event->device = device;
  return event;
}

// Whether this one is to hang, until its communicators are aborted.
bool Hangs(Stream& stream, const std::shared_ptr<Clique>& clique) {
  if (NcclFaults().hanging == 0) return false;
  --NcclFaults().hanging;
  stream.Put([clique] {
    while (!clique->aborted) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  return true;
}

ncclResult_t Refuse(ncclResult_t status) {
  if (depth > 0 && group_error == ncclSuccess) group_error = status;
  return status;
}

ncclResult_t MatchMessages() {
  for (const Message& receive : receives) {
    const auto send = std::find_if(sends.begin(), sends.end(), [&](const Message& s) {
      return s.from == receive.from && s.to == receive.to;
    });
    // The real library would wait for ever.
    if (send == sends.end() || send->bytes != receive.bytes) return ncclInvalidUsage;
    ++NcclCounts().messages;
    const Event ready = MakeEvent(send->stream->device());
    const Event taken = MakeEvent(receive.stream->device());
    tandem::emulated::Mark(*send->stream, ready);
    tandem::emulated::WaitFor(*receive.stream, ready);
    if (!Hangs(*receive.stream, receive.clique))
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

// Where [data, data + bytes) lies in a window of the rank's; -1: in none.
int64_t OffsetInWindow(const ncclComm& comm, const std::byte* data, size_t bytes) {
  for (const ncclWindow_t window : comm.windows) {
    if (data >= window->begin && data + bytes <= window->begin + window->size) {
      return data - window->begin;
    }
  }
  return -1;
}

ncclResult_t MatchGathers() {
  if (gathers.empty()) return ncclSuccess;
  const size_t ranks = gathers[0].comm->clique->ranks;
  Check(gathers.size() == ranks, "emulated nccl: a gather that not all ranks join waits for ever");
  std::vector<Event> ready;
  std::vector<Gather> by_rank(ranks);
  for (const Gather& g : gathers) by_rank[static_cast<size_t>(g.comm->rank)] = g;
  gathers.clear();
  const size_t bytes = by_rank[0].bytes;
  const auto source_at = [&](const Gather& g) { return OffsetInWindow(*g.comm, g.source, bytes); };
  const auto target_at = [&](const Gather& g) {
    return OffsetInWindow(*g.comm, g.target, ranks * bytes);
  };
  for (const Gather& g : by_rank) {
    Check(g.comm != nullptr && g.bytes == bytes, "emulated nccl: ranks gather the same size");
    Check(source_at(g) == source_at(by_rank[0]) && target_at(g) == target_at(by_rank[0]),
          "emulated nccl: buffers in symmetric windows lie at the same offset on all ranks");
    ready.push_back(MakeEvent(g.stream->device()));
    tandem::emulated::Mark(*g.stream, ready.back());
  }
  ++(source_at(by_rank[0]) >= 0 && target_at(by_rank[0]) >= 0 ? NcclCounts().window_gathers
                                                              : NcclCounts().plain_gathers);
  std::vector<Event> taken;
  Hangs(*by_rank[0].stream, by_rank[0].comm->clique);
  for (const Gather& g : by_rank) {
    for (const Event& event : ready) tandem::emulated::WaitFor(*g.stream, event);
    g.stream->Put([target = g.target, by_rank, bytes] {
      for (size_t r = 0; r < by_rank.size(); ++r) {
        std::memcpy(target + r * bytes, by_rank[r].source, bytes);
      }
    });
    taken.push_back(MakeEvent(g.stream->device()));
    tandem::emulated::Mark(*g.stream, taken.back());
  }
  for (const Gather& g : by_rank) {
    for (const Event& event : taken) tandem::emulated::WaitFor(*g.stream, event);
  }
  return ncclSuccess;
}

ncclResult_t Register() {
  if (registering.empty()) return ncclSuccess;
  const std::vector<Registering> all = std::exchange(registering, {});
  const std::shared_ptr<Clique> clique = all[0].comm->clique;
  std::set<int> ranks;
  for (const Registering& r : all) ranks.insert(r.comm->rank);
  Check(ranks.size() == clique->ranks && all.size() == clique->ranks,
        "emulated nccl: a window that not all ranks register waits for ever");
  if (WindowsAre() == "error") {
    clique->broken = true;
    return ncclSystemError;
  }
  for (const Registering& r : all) {
    Check(r.comm->clique == clique && r.size == all[0].size,
          "emulated nccl: ranks register windows of the same size");
    const auto memory = Allocations().find(r.begin);
    Check(memory != Allocations().end() && r.size <= memory->second.size &&
              memory->second.device == r.comm->device,
          "emulated nccl: a symmetric window is memory of ncclMemAlloc on its rank's device");
    Check(r.size % NCCL_WIN_REQUIRED_ALIGNMENT == 0, "emulated nccl: a window of whole pages");
    if (WindowsAre() == "none") {
      *r.window = nullptr;
      continue;
    }
    *r.window = new ncclWindow_vidmem{r.comm, r.begin, r.size};
    r.comm->windows.insert(*r.window);
  }
  return ncclSuccess;
}

ncclResult_t Match() {
  if (const ncclResult_t status = std::exchange(group_error, ncclSuccess); status != ncclSuccess) {
    sends.clear();
    receives.clear();
    gathers.clear();
    registering.clear();
    return status;
  }
  for (ncclResult_t (*part)() : {Register, MatchMessages, MatchGathers}) {
    const ncclResult_t status = part();
    if (status != ncclSuccess) return status;
  }
  return ncclSuccess;
}

ncclResult_t Ask(ncclComm_t comm, std::vector<Message>& messages, const Message& message) {
  if (comm->clique->broken) return Refuse(ncclRemoteError);
  if (message.stream == nullptr) return Refuse(ncclInvalidArgument);
  messages.push_back(message);
  return depth > 0 ? ncclSuccess : Match();
}

}  // namespace

namespace tandem::emulated {

NcclCallCounts& NcclCounts() {
  static NcclCallCounts counts;
  return counts;
}
NcclFaultPlan& NcclFaults() {
  static NcclFaultPlan faults;
  return faults;
}

}  // namespace tandem::emulated

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
  const auto clique = std::make_shared<Clique>();
  clique->ranks = static_cast<size_t>(n);
  for (int rank = 0; rank < n; ++rank) {
    comms[rank] = new ncclComm{rank, devices[rank], clique, {}};
    ++NcclCounts().communicators;
  }
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  Check(comm->windows.empty(), "emulated nccl: windows are given back before their communicator");
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->clique->aborted = true;
  for (ncclWindow_t window : comm->windows) delete window;
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* error) {
  *error = NcclFaults().async_error ? ncclRemoteError : ncclSuccess;
  return ncclSuccess;
}
ncclResult_t ncclGroupStart() {
  ++depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() { return --depth > 0 ? ncclSuccess : Match(); }

ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  if (NcclFaults().failing_sends > 0) {
    --NcclFaults().failing_sends;
    return Refuse(ncclSystemError);
  }
  return Ask(
      comm, sends,
      {comm->rank, peer, from, nullptr, count, reinterpret_cast<Stream*>(stream), comm->clique});
}
ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return Ask(
      comm, receives,
      {peer, comm->rank, nullptr, to, count, reinterpret_cast<Stream*>(stream), comm->clique});
}
ncclResult_t ncclAllGather(const void* source, void* target, size_t count, ncclDataType_t,
                           ncclComm_t comm, cudaStream_t stream) {
  if (NcclFaults().failing_gathers > 0) {
    --NcclFaults().failing_gathers;
    return Refuse(ncclSystemError);
  }
  if (comm->clique->broken) return Refuse(ncclRemoteError);
  Check(depth > 0, "emulated nccl: one thread's collectives over all ranks are one group");
  gathers.push_back({comm, static_cast<const std::byte*>(source), static_cast<std::byte*>(target),
                     count, reinterpret_cast<Stream*>(stream)});
  return ncclSuccess;
}

ncclResult_t ncclMemAlloc(void** data, size_t size) {
  *data = Machine::Get().Allocate(Place::kDevice, CurrentDevice(), size);
  if (*data == nullptr) return ncclSystemError;
  Allocations()[static_cast<std::byte*>(*data)] = {CurrentDevice(), size};
  ++NcclCounts().allocations;
  return ncclSuccess;
}
ncclResult_t ncclMemFree(void* data) {
  const auto memory = Allocations().find(static_cast<std::byte*>(data));
  if (memory == Allocations().end()) return ncclInvalidArgument;
  Allocations().erase(memory);
  --NcclCounts().allocations;
  return Machine::Get().Free(Place::kDevice, data) ? ncclSuccess : ncclInvalidArgument;
}
ncclResult_t ncclCommWindowRegister(ncclComm_t comm, void* data, size_t size, ncclWindow_t* window,
                                    int flags) {
  if (comm->clique->broken) return ncclRemoteError;
  if (flags != NCCL_WIN_COLL_SYMMETRIC) return ncclInvalidArgument;
  Check(depth > 0, "emulated nccl: one thread registers the windows of all ranks in one group");
  registering.push_back({comm, static_cast<std::byte*>(data), size, window});
  return ncclSuccess;
}
ncclResult_t ncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t window) {
  const auto own = comm->windows.find(window);
  Check(own != comm->windows.end(), "emulated nccl: a window of the communicator's");
  Check(Allocations().contains(window->begin),
        "emulated nccl: windows are given back before their memory");
  comm->windows.erase(own);
  delete window;
  return ncclSuccess;
}

}  // extern "C"
