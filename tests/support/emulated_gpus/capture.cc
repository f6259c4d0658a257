#include "tests/support/emulated_gpus/capture.h"

#include <algorithm>
#include <map>
#include <utility>

namespace tandem::emulated {
namespace {

std::unique_ptr<Capture>& Current() {
  static std::unique_ptr<Capture> capture;
  return capture;
}

// Where a graph's work for a stream runs: apart from the stream itself, for launches are ordered by
// the stream that they are made in alone.
Stream& ShadowOf(const Stream* stream) {
  static auto* shadows = new std::map<const Stream*, std::unique_ptr<Stream>>;
  auto& shadow = (*shadows)[stream];
  if (shadow == nullptr) shadow = std::make_unique<Stream>(stream->device());
  return *shadow;
}

Event MakeEvent(int device) {
  auto event = std::make_shared<EventState>();
  event->device = device;
  return event;
}

}  // namespace

Capture* TheCapture() { return Current().get(); }
void BeginCapture(Stream* origin) { Current() = std::make_unique<Capture>(origin); }
std::unique_ptr<Capture> EndCapture() { return std::move(Current()); }

Capture::Capture(Stream* origin)
    : id_([] {
        static uint64_t last = 0;
        return ++last;
      }()),
      origin_(origin),
      streams_{origin},
      graph_(std::make_unique<Graph>()) {}

void Capture::Work(Stream* stream, std::function<void()> work) {
  graph_->items.push_back({.stream = stream, .work = std::move(work)});
}

void Capture::Mark(Stream* stream, const Event& event) {
  event->capture = id_;
  graph_->items.push_back({.stream = stream, .marks = event});
}

void Capture::MarkOutside(Stream* stream, const Event& event) {
  graph_->items.push_back({.stream = stream, .marks_outside = event});
}

bool Capture::Wait(Stream* stream, const Event& event) {
  if (event->capture != id_) return false;
  streams_.insert(stream);
  graph_->items.push_back({.stream = stream, .waits = event});
  return true;
}

bool Capture::Joined() const {
  const auto& items = graph_->items;
  return std::all_of(streams_.begin(), streams_.end(), [&](Stream* stream) {
    if (stream == origin_) return true;
    const auto last = std::find_if(items.rbegin(), items.rend(),
                                   [&](const auto& item) { return item.stream == stream; });
    if (last == items.rend() || last->marks == nullptr) return false;
    return std::any_of(items.rbegin(), last, [&](const auto& item) {
      return item.stream == origin_ && item.waits == last->marks;
    });
  });
}

std::unique_ptr<Graph> Capture::Take() { return std::move(graph_); }

void Graph::Launch(Stream& on) const {
  std::map<const Stream*, Stream*> shadows;
  for (const CapturedItem& item : items) shadows.try_emplace(item.stream, &ShadowOf(item.stream));
  const Event begun = MakeEvent(on.device());
  emulated::Mark(on, begun);
  for (const auto& [stream, shadow] : shadows) WaitFor(*shadow, begun);
  std::map<const EventState*, Event> marks;  // a launch's own
  for (const CapturedItem& item : items) {
    Stream& shadow = *shadows.at(item.stream);
    if (item.work) shadow.Put(item.work);
    if (item.marks_outside) emulated::Mark(shadow, item.marks_outside);
    if (item.marks) {
      const Event own = MakeEvent(shadow.device());
      marks[item.marks.get()] = own;
      emulated::Mark(shadow, own);
    }
    if (item.waits) WaitFor(shadow, marks.at(item.waits.get()));
  }
  for (const auto& [stream, shadow] : shadows) {
    const Event ended = MakeEvent(shadow->device());
    emulated::Mark(*shadow, ended);
    WaitFor(on, ended);
  }
}

}  // namespace tandem::emulated
