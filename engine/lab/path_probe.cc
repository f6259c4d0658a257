#include "engine/lab/path_probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>

#include "engine/base/error.h"
#include "engine/link/self_test.h"
#include "engine/run/path_test.h"

namespace tandem {
namespace {

constexpr uint64_t kLeast = 64;
constexpr uint64_t kMost = uint64_t{64} << 20;
constexpr uint64_t kBytesInARow = uint64_t{4} << 20;  // what small messages are repeated up to

uint32_t RepeatsOf(Bytes bytes, uint32_t most) {
  return static_cast<uint32_t>(std::clamp<uint64_t>(kBytesInARow / bytes.value, 1, most));
}

const char* ReplayedName(LaunchMode launch) {
  return launch == LaunchMode::kGraph ? ", replayed" : "";
}

// Kernels that gave up waiting for one another moved nothing worth timing.
void FailIfGivenUp(Transport& transport) {
  if (const auto failure = transport.TakeFailure()) Fail(ErrorCode::kDevice, failure->what);
}

// One kind of movement over all sizes.
struct Movement {
  PathKind path;
  std::string what;
  Transport* transport;
  std::function<double(Bytes bytes, uint32_t repeats)> seconds;
};

class PathProbe {
 public:
  PathProbe(Backend& backend, const Rig& rig, MessageClock& clock)
      : backend_(backend), clock_(clock) {
    if (backend.devices().size() > 1) {
      for (PathKind path : PathsToTest(rig)) AddPath(path);
    }
    AddHost(rig.HostPath());
  }

  std::vector<MeasuredPath> Run(const std::vector<Bytes>& sizes, const ProbeRounds& rounds,
                                const ProbeProgress& progress) {
    std::vector<ProbeArm> arms;
    for (const Movement& movement : movements_) {
      arms.push_back(ProbeArm{.name = fmt::format("{}: {}", ToString(movement.path), movement.what),
                              .sample =
                                  [&movement, &sizes, most = rounds.repeats] {
                                    std::vector<double> seconds;
                                    for (Bytes bytes : sizes) {
                                      seconds.push_back(
                                          movement.seconds(bytes, RepeatsOf(bytes, most)));
                                    }
                                    FailIfGivenUp(*movement.transport);
                                    return seconds;
                                  },
                              .series = {},
                              .failed = {}});
    }
    RunInTurn(arms, rounds, progress);
    for (size_t i = 0; i < arms.size(); ++i) {
      MeasuredPath path{.path = movements_[i].path,
                        .what = movements_[i].what,
                        .points = {},
                        .refused = arms[i].failed};
      for (size_t s = 0; s < arms[i].series.size(); ++s) {
        path.points.push_back(MeasuredPoint{sizes[s], SpreadOf(arms[i].series[s], 1e6)});
      }
      done_.push_back(std::move(path));
    }
    return std::move(done_);
  }

 private:
  void Refuse(PathKind path, const std::string& what, const std::string& why) {
    done_.push_back(MeasuredPath{.path = path, .what = what, .points = {}, .refused = why});
  }

  void AddPath(PathKind path) {
    Transport* transport = nullptr;
    try {
      transports_.push_back(backend_.MakeTransport(path));
      transport = transports_.back().get();
    } catch (const Error& error) {
      return Refuse(path, kPathCanBeHad, error.what());
    }
    const auto pairs = ProbePairs(backend_.devices().size());
    std::vector<std::pair<size_t, size_t>> trusted;
    for (const auto& [src, dst] : pairs) {
      try {
        SelfTestPath(*transport, *backend_.devices()[src], *backend_.devices()[dst]);
        trusted.emplace_back(src, dst);
      } catch (const Error& error) {
        Refuse(path, OneWayName(src, dst), error.what());
      }
    }
    const auto is_trusted = [&](size_t a, size_t b) {
      return std::find(trusted.begin(), trusted.end(), std::pair(a, b)) != trusted.end();
    };
    const std::vector<LaunchMode> launches = LaunchesOver(*transport);
    for (const auto& [src, dst] : trusted) {
      for (LaunchMode launch : launches) {
        Add(path, OneWayName(src, dst, launch), transport,
            [this, transport, src = src, dst = dst, launch](Bytes b, uint32_t n) {
              return clock_.OneWay(*transport, src, dst, b, n, launch);
            });
      }
    }
    for (const auto& [a, b] : trusted) {
      if (a > b || !is_trusted(b, a)) continue;
      Add(path, BothWaysName(a, b), transport,
          [this, transport, a = a, b = b](Bytes bytes, uint32_t n) {
            return clock_.BothWays(*transport, a, b, bytes, n);
          });
      if (a != 0 || b != 1) continue;
      for (LaunchMode launch : launches) {
        Add(path, AllReduceName(a, b, launch), transport,
            [this, transport, launch](Bytes bytes, uint32_t n) {
              return clock_.AllReduce(*transport, 0, 1, bytes, n, launch);
            });
      }
    }
  }

  void AddHost(PathKind path) {
    transports_.push_back(backend_.MakeHostTransport(path));
    Transport* const transport = transports_.back().get();
    for (size_t d = 0; d < backend_.devices().size(); ++d) {
      for (LaunchMode launch : LaunchesOver(*transport)) {
        Add(path, FromHostName(d, launch), transport,
            [this, transport, d, launch](Bytes bytes, uint32_t n) {
              return clock_.FromHost(*transport, d, bytes, n, launch);
            });
        Add(path, ToHostName(d, launch), transport,
            [this, transport, d, launch](Bytes bytes, uint32_t n) {
              return clock_.ToHost(*transport, d, bytes, n, launch);
            });
      }
      Add(path, fmt::format("host and d{} at once", d), transport,
          [this, transport, d](Bytes bytes, uint32_t n) {
            return clock_.HostBothWays(*transport, d, bytes, n);
          });
    }
  }

  std::vector<LaunchMode> LaunchesOver(const Transport& transport) const {
    if (!clock_.CanReplay(transport)) return {LaunchMode::kEager};
    return {LaunchMode::kEager, LaunchMode::kGraph};
  }

  void Add(PathKind path, std::string what, Transport* transport,
           std::function<double(Bytes, uint32_t)> seconds) {
    movements_.push_back(Movement{path, std::move(what), transport, std::move(seconds)});
  }

  Backend& backend_;
  MessageClock& clock_;
  std::vector<std::unique_ptr<Transport>> transports_;
  std::vector<Movement> movements_;
  std::vector<MeasuredPath> done_;
};

}  // namespace

std::vector<Bytes> ProbeSizes(bool quick, Bytes largest) {
  std::vector<Bytes> sizes;
  for (uint64_t bytes = kLeast; bytes <= std::min(kMost, largest.value); bytes *= quick ? 8 : 2) {
    sizes.push_back(Bytes{bytes});
  }
  return sizes;
}

std::vector<std::pair<size_t, size_t>> ProbePairs(size_t devices) {
  std::vector<std::pair<size_t, size_t>> pairs;
  for (size_t a = 0; a < devices; ++a) {
    for (size_t b = 0; b < devices; ++b) {
      const bool near = std::min(a, b) == 0 || a + 1 == b || b + 1 == a;
      if (a != b && (devices <= 4 || near)) pairs.emplace_back(a, b);
    }
  }
  return pairs;
}

std::vector<MeasuredPath> ProbePaths(Backend& backend, const Rig& rig, MessageClock& clock,
                                     const std::vector<Bytes>& sizes, const ProbeRounds& rounds,
                                     const ProbeProgress& progress) {
  return PathProbe(backend, rig, clock).Run(sizes, rounds, progress);
}

std::string OneWayName(size_t src, size_t dst, LaunchMode launch) {
  return fmt::format("d{} to d{}{}", src, dst, ReplayedName(launch));
}
std::string BothWaysName(size_t a, size_t b) { return fmt::format("d{} and d{} at once", a, b); }
std::string AllReduceName(size_t a, size_t b, LaunchMode launch) {
  return fmt::format("all-reduce of d{} and d{}{}", a, b, ReplayedName(launch));
}
std::string FromHostName(size_t device, LaunchMode launch) {
  return fmt::format("host to d{}{}", device, ReplayedName(launch));
}
std::string ToHostName(size_t device, LaunchMode launch) {
  return fmt::format("d{} to host{}", device, ReplayedName(launch));
}

}  // namespace tandem
