// Work that queues are asked for, kept to be asked for again as a whole: CUDA graphs, say. While a
// recorder records, what any queue of its devices is asked for is kept in place of being done; a
// replay asks for all of it once more at the price of one call.
//
// A replay comes after all that the queues were asked for before it, and what they are asked for
// later comes after the replay. Within it the order is that of the queues and of the waits between
// them, as recorded; a wait for a mark from before the recording is left out, for the replay comes
// after that anyway. Marks are passed anew by each replay: DeviceEvent::Since tells the times of
// the last one. The host waits by DeviceQueue::Finish alone, and not while recording.
//
// Memory that recorded work touches stays where it is for as long as the recording lives; nothing
// may be allocated while recording. One thread, the executor's.
//
//   recorder.Begin();
//   ... ask queues ...
//   std::unique_ptr<Recording> step = recorder.End();
//   step->Replay();
#pragma once

#include <memory>

namespace tandem {

class Recording {
 public:
  virtual ~Recording() = default;  // when no replay is under way
  // Throws Error(kDevice).
  virtual void Replay() = 0;
};

// Of all queues of a back end's devices.
class QueueRecorder {
 public:
  virtual ~QueueRecorder() = default;
  virtual void Begin() = 0;
  virtual std::unique_ptr<Recording> End() = 0;
  // Ends a recording of which nothing is kept, after a failure within it.
  virtual void Abandon() noexcept = 0;
};

}  // namespace tandem
