#include "engine/run/host_probe.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>

#include "kernels/cpu/probe_loops.h"

namespace tandem {
namespace {

constexpr size_t kKeep = 9;         // measurements a median is taken over
constexpr size_t kFirstRounds = 5;  // measurements of everything before the first step
constexpr size_t kGrain = 4096;     // shares of threads are multiples of it
constexpr int kSpins = 10000;       // some twenty microseconds
constexpr double kSliceOps = 4e6;   // of a thread: some twenty microseconds

// The latest measurements of one thing.
class Median {
 public:
  void Add(double value) {
    values_[next_] = value;
    next_ = (next_ + 1) % kKeep;
    count_ = std::min(count_ + 1, kKeep);
    std::array<double, kKeep> sorted = values_;
    const auto middle = sorted.begin() + static_cast<ptrdiff_t>(count_ / 2);
    std::nth_element(sorted.begin(), middle, sorted.begin() + static_cast<ptrdiff_t>(count_));
    median_ = *middle;
  }
  double value() const { return median_; }

 private:
  std::array<double, kKeep> values_{};
  size_t next_ = 0;
  size_t count_ = 0;
  double median_ = 0;
};

int64_t NanosNow() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

size_t CacheBytes(int name, size_t otherwise) {
  const long bytes = sysconf(name);
  return bytes > 0 ? static_cast<size_t>(bytes) : otherwise;
}

struct Alignment {
  alignas(64) std::array<std::byte, 64> bytes;
};

}  // namespace

struct HostProbe::State {
  struct Point {
    size_t bytes = 0;       // the whole team's working set
    size_t read_bytes = 0;  // what one measurement reads
    size_t offset = 0;      // where a slice of a working set beyond the caches goes on
    Median rate;
  };

  State(ThreadPool& team, ArithmeticKind arithmetic)
      : pool(team), loops(BestProbeLoops(arithmetic)) {
    const auto threads = static_cast<size_t>(pool.threads());
    const size_t l1 = CacheBytes(_SC_LEVEL1_DCACHE_SIZE, 32 << 10);
    const size_t l2 = CacheBytes(_SC_LEVEL2_CACHE_SIZE, 512 << 10);
    const size_t l3 = CacheBytes(_SC_LEVEL3_CACHE_SIZE, 8 << 20);
    // Half a cache, so that whatever else runs does not push it out. A shared last level may be
    // that of a large host of which this machine has a part: 4 MiB stays inside it.
    AddPoint(l1 / 2 * threads, size_t{1} << 20);
    AddPoint(l2 / 2 * threads, size_t{4} << 20);
    AddPoint(std::clamp(l3 / 2, l2 * threads, size_t{8} << 20), size_t{8} << 20);
    // Larger than the last level, read a slice at a time.
    AddPoint(std::clamp(2 * l3, size_t{64} << 20, size_t{192} << 20), size_t{4} << 20);
    memory.resize(points.back().bytes / sizeof(Alignment));
    pool.Run([&](int thread, int n) {
      const WorkRange range = SplitWork(static_cast<int64_t>(memory.size()), thread, n);
      for (int64_t i = range.begin; i < range.end; ++i) {
        memory[static_cast<size_t>(i)].bytes.fill(static_cast<std::byte>(i));
      }
    });
    for (size_t round = 0; round < kFirstRounds; ++round) {
      for (size_t i = 0; i < points.size(); ++i) MeasureRead(points[i]);
      MeasureArithmetic();
    }
  }

  void AddPoint(size_t bytes, size_t read_bytes) {
    const size_t grain = kGrain * static_cast<size_t>(pool.threads());
    bytes = std::max(bytes / grain, size_t{1}) * grain;
    if (!points.empty() && bytes <= points.back().bytes) return;
    points.push_back(Point{.bytes = bytes, .read_bytes = read_bytes, .offset = 0, .rate = {}});
  }

  // Runs `work` on every thread at once and gives the longest that one took, in seconds. The team
  // wakes up and runs `prepare` before the clocks start: entering a region may take longer than a
  // slice.
  template <typename Prepare, typename Work>
  double Slowest(const Prepare& prepare, const Work& work) {
    std::atomic<int> waiting{pool.threads()};
    std::atomic<int64_t> slowest{0};
    pool.Run([&](int thread, int) {
      sink.fetch_add(prepare(static_cast<size_t>(thread)), std::memory_order_relaxed);
      waiting.fetch_sub(1, std::memory_order_acq_rel);
      // On a machine with more to do than cores, the one waited for may need this core.
      for (int spins = 0; waiting.load(std::memory_order_acquire) > 0; ++spins) {
        if (spins > kSpins) std::this_thread::yield();
      }
      const int64_t start = NanosNow();
      sink.fetch_add(work(static_cast<size_t>(thread)), std::memory_order_relaxed);
      const int64_t took = NanosNow() - start;
      int64_t most = slowest.load(std::memory_order_relaxed);
      while (took > most && !slowest.compare_exchange_weak(most, took)) {
      }
    });
    return 1e-9 * static_cast<double>(slowest.load());
  }

  void MeasureRead(Point& point) {
    if (const double rate = ReadRate(point); rate > 0) point.rate.Add(rate);
  }

  // Bytes a second of one measurement; zero where the clock saw none of it.
  double ReadRate(Point& point) {
    const auto* data = reinterpret_cast<const std::byte*>(memory.data());
    const auto threads = static_cast<size_t>(pool.threads());
    // Whole passes over a set that fits a cache, after one that brings it in; one slice of the
    // rest.
    const bool cached = point.bytes <= point.read_bytes;
    const size_t span = cached ? point.bytes : point.read_bytes;
    const size_t passes = cached ? std::max<size_t>(point.read_bytes / span, 1) : 1;
    const size_t share = span / threads / kGrain * kGrain;
    const std::byte* from = data + point.offset;
    const auto read = [&](size_t thread, size_t count) {
      uint64_t sum = 0;
      for (size_t i = 0; i < count; ++i) sum += loops.read(from + thread * share, share);
      return sum;
    };
    const double seconds = Slowest([&](size_t thread) { return cached ? read(thread, 1) : 0; },
                                   [&](size_t thread) { return read(thread, passes); });
    if (!cached) {
      point.offset += span;
      if (point.offset + span > point.bytes) point.offset = 0;
    }
    return seconds > 0 ? static_cast<double>(share * threads * passes) / seconds : 0;
  }

  void MeasureArithmetic() {
    if (const double rate = ArithmeticRate(loops, kSliceOps); rate > 0) arithmetic.Add(rate);
  }

  // Operations a second over `ops` of each thread; zero where the clock saw none of them.
  double ArithmeticRate(const ProbeLoops& with, double ops) {
    const auto iterations = static_cast<uint64_t>(ops / with.ops_per_iteration) + 1;
    const double seconds = Slowest([](size_t) { return uint64_t{0}; },
                                   [&](size_t) { return with.arithmetic(iterations); });
    return seconds > 0
               ? static_cast<double>(iterations) * with.ops_per_iteration * pool.threads() / seconds
               : 0;
  }

  void MeasureNext() {
    if (next == points.size()) {
      MeasureArithmetic();
      next = 0;
    } else {
      MeasureRead(points[next++]);
    }
  }

  ThreadPool& pool;
  ProbeLoops loops;
  std::vector<Alignment> memory;
  std::vector<Point> points;  // increasing sizes
  Median arithmetic;
  std::atomic<uint64_t> sink{0};  // keeps the loops' results alive
  size_t next = 0;
  double owed = 0;  // seconds of probing that the steps so far allow, less what was spent
};

HostProbe::HostProbe(ThreadPool& pool, ArithmeticKind arithmetic)
    : state_(std::make_unique<State>(pool, arithmetic)) {}
HostProbe::~HostProbe() = default;

double HostProbe::SampleMemoryRead() {
  // Several slices: one takes a fraction of a millisecond.
  constexpr int kSlices = 8;
  double seconds = 0;
  for (int i = 0; i < kSlices; ++i) {
    const double rate = state_->ReadRate(state_->points.back());
    seconds += rate > 0 ? 1 / rate : 0;
  }
  return seconds > 0 ? kSlices / seconds : 0;
}

double HostProbe::SampleFlops(ArithmeticKind arithmetic) {
  return state_->ArithmeticRate(BestProbeLoops(arithmetic), 50 * kSliceOps);
}

double HostProbe::flops() const { return state_->arithmetic.value(); }

double HostProbe::bytes_per_s(double working_set) const {
  const auto& points = state_->points;
  if (working_set <= static_cast<double>(points.front().bytes)) return points.front().rate.value();
  for (size_t i = 1; i < points.size(); ++i) {
    const auto above = static_cast<double>(points[i].bytes);
    if (working_set > above) continue;
    const auto below = static_cast<double>(points[i - 1].bytes);
    const double t = std::log(working_set / below) / std::log(above / below);
    return points[i - 1].rate.value() + t * (points[i].rate.value() - points[i - 1].rate.value());
  }
  return points.back().rate.value();
}

void HostProbe::Interleave(Nanos step) {
  State& state = *state_;
  state.owed += kShare * step.Seconds();
  if (state.owed <= 0) return;
  const int64_t start = NanosNow();
  state.MeasureNext();
  // A long wait between steps earns no burst of probes.
  state.owed = std::min(state.owed, 0.01) - 1e-9 * static_cast<double>(NanosNow() - start);
}

}  // namespace tandem
