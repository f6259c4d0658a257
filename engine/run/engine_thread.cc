// The thread that drives an engine for front ends that have none of their own. See engine.h.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/run/engine.h"

namespace tandem {

struct EngineThread::State {
  explicit State(Engine& e) : engine(e), thread([this] { Loop(); }) {}

  void Loop() {
    std::unique_lock lock(mutex);
    while (true) {
      // Submit and Cancel set `pending` after the engine knows; a wake-up is never lost.
      wake.wait(lock, [this] { return stop || pending; });
      if (stop) break;
      pending = false;
      idle = false;
      lock.unlock();
      while (!stop_now.load(std::memory_order_acquire) && engine.HasWork()) engine.Step();
      lock.lock();
      if (!pending) {
        idle = true;
        became_idle.notify_all();
      }
    }
    lock.unlock();
    engine.CancelAll();
    while (engine.HasWork()) engine.Step();
  }

  void Wake() {
    {
      std::lock_guard lock(mutex);
      pending = true;
      idle = false;
    }
    wake.notify_one();
  }

  Engine& engine;
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable became_idle;
  bool pending = false;
  bool stop = false;
  bool idle = true;
  std::atomic<bool> stop_now{false};
  std::thread thread;  // last: it starts with everything else in place
};

EngineThread::EngineThread(Engine& engine) : state_(std::make_unique<State>(engine)) {}

EngineThread::~EngineThread() {
  state_->stop_now.store(true, std::memory_order_release);
  {
    std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->wake.notify_one();
  state_->thread.join();
}

RequestId EngineThread::Submit(Request request, std::shared_ptr<RequestListener> listener) {
  const RequestId id = state_->engine.Submit(std::move(request), std::move(listener));
  state_->Wake();
  return id;
}

void EngineThread::Cancel(RequestId id) {
  state_->engine.Cancel(id);
  state_->Wake();
}

bool EngineThread::Drain(Nanos timeout) {
  std::unique_lock lock(state_->mutex);
  return state_->became_idle.wait_for(lock, std::chrono::nanoseconds(timeout.value),
                                      [this] { return state_->idle; });
}

}  // namespace tandem
