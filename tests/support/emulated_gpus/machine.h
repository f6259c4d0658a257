// Two GPUs that are not there: memory, streams and events with the rules of CUDA's, each stream a
// thread of its own so that work comes late and side by side, kernels in the emulation beside this.
// Under it the engine's own code for GPUs runs unchanged, from the command line down to the
// launches: cuda_runtime.cc, cublaslt.cc and nccl.cc give the functions of the libraries that this
// code calls.
//
// What it holds its callers to: a kernel goes to a stream of the current device, an event to a
// stream of its own; copies stay within what was allocated; memory is junk when it is new and when
// it was freed; a copy from ordinary memory has read it on return, one to it is done on return.
// What it cannot show: speed, and memory ordering between devices weaker than this processor's.
//
// TANDEM_EMULATED_LOST_AFTER=n: the n-th kernel from the start writes where it may not.
// TANDEM_EMULATED_UNTOUCHED=n: a call that makes a context on GPU n ends the program.
// TANDEM_EMULATED_GPUS: how many (2). TANDEM_EMULATED_PEERS=0: none reaches another's memory.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace tandem::emulated {

// The mark's state outlives its handle while streams still have it to pass.
struct EventState {
  int device = 0;
  bool timed = true;
  std::mutex mutex;
  std::condition_variable passed_one;
  uint64_t asked = 0;   // marks put in streams
  uint64_t passed = 0;  // of these, the last that was reached
  std::chrono::steady_clock::time_point when;
  uint64_t capture = 0;  // in which it was last marked, as an order within it; 0: none

  void Wait(uint64_t mark);
};
using Event = std::shared_ptr<EventState>;

class Stream {
 public:
  explicit Stream(int device);
  ~Stream();  // when its work is done
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int device() const { return device_; }
  void Put(std::function<void()> work);
  void Finish();
  bool idle();

 private:
  void Run();

  const int device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
  bool busy_ = false;
  bool stopping_ = false;
  uint32_t random_;
  std::thread thread_;
};

void Mark(Stream& stream, const Event& event);
void WaitFor(Stream& stream, const Event& event);

// Where an address lies.
enum class Place { kPageable, kPinned, kDevice };

class Machine {
 public:
  static Machine& Get();

  int devices() const { return devices_; }
  bool peers() const { return peers_; }
  uint64_t total_bytes() const { return uint64_t{4} << 30; }
  uint64_t used_bytes(int device);

  // Null when a device has no room.
  void* Allocate(Place place, int device, uint64_t bytes);
  // False when `data` does not begin an allocation of the place.
  bool Free(Place place, void* data);
  // Memory of the caller's that is page-locked from here on; and no longer.
  bool Pin(void* data, uint64_t bytes);
  bool Unpin(void* data);
  // False when the run crosses the end of what was allocated there.
  bool Locate(const void* data, uint64_t bytes, Place& place, int* device = nullptr);

  Stream* MakeStream(int device);
  void DestroyStream(Stream* stream);
  bool Knows(const Stream* stream);
  void FinishDevice(int device);  // -1: all of them

  // A kernel starts. False when its device is lost, by this kernel or before.
  bool CountKernel();
  bool lost() const { return lost_; }

  bool EnablePeer(int from, int to);  // false when it is already

  // A call that makes a context on the device where there is none.
  void Touch(int device);
  std::set<int> contexts();

 private:
  Machine();
  struct Allocation {
    Place place;
    int device;
    uint64_t bytes;
    bool owned;
  };

  int devices_;
  bool peers_;
  int untouched_;
  std::atomic<int64_t> kernels_left_;
  std::atomic<bool> lost_{false};
  std::mutex mutex_;
  std::map<uintptr_t, Allocation> allocations_;
  std::map<Stream*, std::unique_ptr<Stream>> streams_;
  std::set<std::pair<int, int>> enabled_;
  std::set<int> contexts_;
};

// The calling thread's.
int& CurrentDevice();

}  // namespace tandem::emulated
