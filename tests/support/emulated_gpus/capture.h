// Stream capture of the emulated machine: what captured streams are asked for, kept in the order of
// asking, and graphs that ask for it again on streams of their own, side by side as far as the
// captured events allow.
//
// One capture at a time, by one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "tests/support/emulated_gpus/machine.h"

namespace tandem::emulated {

struct CapturedItem {
  Stream* stream = nullptr;
  std::function<void()> work;
  Event marks, waits;   // an order within the graph
  Event marks_outside;  // an event that every launch records
};

class Graph {
 public:
  std::vector<CapturedItem> items;
  void Launch(Stream& on) const;
};

class Capture {
 public:
  explicit Capture(Stream* origin);
  uint64_t id() const { return id_; }
  bool Holds(const Stream* stream) const { return streams_.count(const_cast<Stream*>(stream)) > 0; }
  Stream* origin() const { return origin_; }

  void Work(Stream* stream, std::function<void()> work);
  void Mark(Stream* stream, const Event& event);
  void MarkOutside(Stream* stream, const Event& event);
  // The stream takes part from here on. False where the event is none of this capture's.
  bool Wait(Stream* stream, const Event& event);
  // What cannot be kept was asked for: nothing comes of it.
  void Spoil() { spoilt_ = true; }
  bool spoilt() const { return spoilt_; }
  // Whether every stream that takes part has been joined to the first.
  bool Joined() const;
  std::unique_ptr<Graph> Take();

 private:
  const uint64_t id_;
  Stream* const origin_;
  std::set<Stream*> streams_;
  std::unique_ptr<Graph> graph_;
  bool spoilt_ = false;
};

// The capture under way; null: none.
Capture* TheCapture();
void BeginCapture(Stream* origin);
std::unique_ptr<Capture> EndCapture();

}  // namespace tandem::emulated
