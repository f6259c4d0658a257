#include "engine/plan/attribution.h"

#include <algorithm>
#include <array>

namespace tandem {
namespace {

enum State : size_t { kCompute, kLaunch, kWire, kWait, kIdle };

// At `at`, the number of open intervals of `state` changes by `by`.
struct Edge {
  int64_t at;
  State state;
  int by;
};

void AddEdges(std::vector<Edge>& edges, const std::vector<Interval>& intervals, State state) {
  for (const Interval& interval : intervals) {
    if (interval.empty()) continue;
    edges.push_back(Edge{interval.begin.value, state, 1});
    edges.push_back(Edge{interval.end.value, state, -1});
  }
}

State FirstOpen(const std::array<int, kIdle>& open) {
  for (size_t state = 0; state < kIdle; ++state) {
    if (open[state] > 0) return static_cast<State>(state);
  }
  return kIdle;
}

}  // namespace

DeviceParts Attribute(const DeviceIntervals& intervals, Nanos length) {
  std::vector<Edge> edges;
  AddEdges(edges, intervals.compute, kCompute);
  AddEdges(edges, intervals.launch, kLaunch);
  AddEdges(edges, intervals.wire, kWire);
  AddEdges(edges, intervals.wait, kWait);
  std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.at < b.at; });
  edges.push_back(Edge{length.value, kIdle, 0});

  DeviceParts parts;
  std::array<Nanos*, kIdle + 1> sums{&parts.compute, &parts.launch, &parts.exposed_comm,
                                     &parts.wait, &parts.idle};
  std::array<int, kIdle> open{};
  int64_t now = 0;
  for (const Edge& edge : edges) {
    int64_t until = std::min(edge.at, length.value);
    if (until > now) {
      State state = FirstOpen(open);
      *sums[state] += Nanos{until - now};
      if (state == kWire) parts.exposed.push_back(Interval{Nanos{now}, Nanos{until}});
      now = until;
    }
    if (edge.state != kIdle) open[edge.state] += edge.by;
  }
  return parts;
}

Nanos UnionLength(std::vector<Interval>& intervals) {
  std::sort(intervals.begin(), intervals.end(),
            [](const Interval& a, const Interval& b) { return a.begin < b.begin; });
  Nanos sum;
  Nanos reached;
  for (const Interval& interval : intervals) {
    Nanos begin = std::max(interval.begin, reached);
    if (interval.end > begin) {
      sum += interval.end - begin;
      reached = interval.end;
    }
  }
  return sum;
}

}  // namespace tandem
