#include "engine/lab/phases.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <random>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/lab/switch_prices.h"
#include "engine/plan/pricer.h"

namespace tandem {
namespace {

class Recorder final : public StepObserver {
 public:
  void OnStep(const StepReport& report) override {
    Bytes counted, sampled;
    for (const HopRow& hop : report.hops) {
      counted += hop.bytes;
      if (hop.kind == OpKind::kSample) sampled += hop.bytes;
    }
    steps.push_back({report.phase, report.lane, report.sequences, report.shape, report.op_times,
                     report.timeline, counted, sampled, report.end - report.start,
                     report.clipped_ops});
  }
  std::vector<StepTrace> steps;
};

class FailLoudly final : public RequestListener {
 public:
  void OnToken(const TokenEvent&) override {}
  void OnDone(FinishReason reason, const std::string& message, const RequestStats&) override {
    if (reason == FinishReason::kError) error = message.empty() ? "unknown error" : message;
  }
  std::string error;
};

std::vector<int32_t> RandomPrompt(uint32_t tokens, uint32_t vocab, std::mt19937_64& random) {
  std::vector<int32_t> prompt(tokens);
  for (int32_t& id : prompt) id = static_cast<int32_t>(random() % vocab);
  return prompt;
}

// Runs `count` equal requests to their end and returns every step.
std::vector<StepTrace> RunRequests(Engine& engine, uint32_t count, uint32_t prompt,
                                   uint32_t generate, uint64_t seed,
                                   const std::function<bool()>& interrupted) {
  Recorder recorder;
  auto listener = std::make_shared<FailLoudly>();
  std::mt19937_64 random(seed);
  engine.AddObserver(&recorder);
  for (uint32_t i = 0; i < count; ++i) {
    Request request;
    request.prompt = RandomPrompt(prompt, engine.model().config().vocab, random);
    request.max_tokens = generate;
    request.ignore_eos = true;
    engine.Submit(std::move(request), listener);
  }
  bool stopped = false;
  while (engine.HasWork() && listener->error.empty() && !stopped) {
    engine.Step();
    stopped = interrupted && interrupted();
  }
  engine.RemoveObserver(&recorder);
  if (stopped) Fail(ErrorCode::kCancelled, "run: interrupted within a repetition");
  if (!listener->error.empty()) Fail(ErrorCode::kFailure, "run: " + listener->error);
  return std::move(recorder.steps);
}

// Of each lane's decode steps the first `count` with as many sequences as it ever had: the others
// decode while some prompts are still on their way.
std::vector<StepTrace> FullDecodeSteps(std::vector<StepTrace> steps, uint32_t count) {
  std::map<uint32_t, uint32_t> most, taken;
  for (const StepTrace& s : steps) {
    if (s.phase == ProgramKind::kDecode) most[s.lane] = std::max(most[s.lane], s.sequences);
  }
  std::vector<StepTrace> full;
  for (StepTrace& s : steps) {
    if (s.phase == ProgramKind::kDecode && s.sequences == most[s.lane] && taken[s.lane] < count) {
      ++taken[s.lane];
      full.push_back(std::move(s));
    }
  }
  return full;
}

uint32_t ProgramIndex(const Plan& plan, ProgramKind kind, uint32_t lane) {
  for (uint32_t p = 0; p < plan.programs.size(); ++p) {
    if (plan.programs[p].kind == kind && plan.programs[p].lane == lane) return p;
  }
  Check(false, "plan has no such program");
  return 0;
}

// One lane's share of a phase.
struct LaneSum {
  Nanos time;
  uint64_t tokens = 0;
  std::vector<DeviceAttribution> attribution;
};

void AddAttribution(std::vector<DeviceAttribution>& sum,
                    const std::vector<DeviceAttribution>& step) {
  if (sum.empty()) {
    sum = step;
    return;
  }
  for (size_t d = 0; d < sum.size(); ++d) {
    sum[d].compute += step[d].compute;
    sum[d].launch += step[d].launch;
    sum[d].exposed_comm += step[d].exposed_comm;
    sum[d].wait += step[d].wait;
    sum[d].idle += step[d].idle;
  }
}

// Lanes side by side: each device from the lane that used it, filled with idle up to the longest.
void MergeLanes(const std::map<uint32_t, LaneSum>& lanes, bool side_by_side, PhaseResult& result) {
  for (const auto& [lane, sum] : lanes) {
    result.time = side_by_side ? std::max(result.time, sum.time) : result.time + sum.time;
  }
  for (const auto& [lane, sum] : lanes) {
    if (result.attribution.empty()) {
      result.attribution = sum.attribution;
      continue;
    }
    for (size_t d = 0; d < sum.attribution.size(); ++d) {
      DeviceAttribution& have = result.attribution[d];
      const DeviceAttribution& other = sum.attribution[d];
      if (side_by_side) {
        if (other.total() - other.idle > have.total() - have.idle) have = other;
      } else {
        std::vector<DeviceAttribution> one{have};
        AddAttribution(one, {other});
        have = one[0];
      }
    }
  }
  for (DeviceAttribution& a : result.attribution) a.idle += result.time - a.total();
}

void AddTraffic(PhaseResult& result, const std::string& op, PathKind path, Bytes bytes,
                uint64_t count) {
  for (TrafficSum& t : result.traffic) {
    if (t.op == op && t.path == ToString(path)) {
      t.bytes += bytes;
      t.count += count;
      return;
    }
  }
  result.traffic.push_back({op, ToString(path), bytes, count});
}

// Bytes between devices; for the host's own traffic (ids, fetched weights) see `traffic`.
bool BetweenDevices(OpKind kind) { return kind != OpKind::kSample && kind != OpKind::kFetch; }

void AddStepTraffic(PhaseResult& result, const BlockGraph& graph, const Plan& plan,
                    const Program& program, const ProgramInfo& info, const StepShape& shape,
                    const Rig& rig) {
  for (const Op& op : program.ops) {
    for (const Hop& hop :
         HopsOf(graph, op, info, shape.microbatches[op.microbatch], plan.wire, rig)) {
      AddTraffic(result, ToString(op.kind), hop.path, hop.bytes, 1);
      if (BetweenDevices(op.kind)) result.link_bytes += hop.bytes;
    }
  }
}

Bytes TotalOf(const PhaseResult& result) {
  Bytes sum;
  for (const TrafficSum& t : result.traffic) sum += t.bytes;
  return sum;
}

// Bytes that moved and bytes the shapes foretell must agree, or no figure here can be trusted. What
// a SAMPLE moves is the back end's own affair: the count takes the place of the ids foretold.
void HoldToCount(PhaseResult& result, Bytes counted, Bytes sampled, ProgramKind phase) {
  for (TrafficSum& t : result.traffic) {
    if (t.op == ToString(OpKind::kSample)) t.bytes = sampled;
  }
  if (counted == TotalOf(result)) return;
  Fail(ErrorCode::kFailure, fmt::format("ledger: counted {} bytes in {}, the shapes give {}",
                                        counted.value, ToString(phase), TotalOf(result).value));
}

// The device whose exposed communication is largest says how much of the phase the link cost.
double LinkShare(const PhaseResult& result) {
  if (result.time.value == 0) return 0;
  Nanos worst;
  for (const DeviceAttribution& a : result.attribution) worst = std::max(worst, a.exposed_comm);
  return static_cast<double>(worst.value) / static_cast<double>(result.time.value);
}

void FillHeader(PhaseResult& result, const Cell& cell, ProgramKind phase) {
  if (phase == ProgramKind::kPrefill) {
    result.sequences = 1;
    result.context = 0;
  } else {
    result.sequences = cell.decode->sequences;
    result.context = cell.decode->context;
  }
}

// A prefill of `tokens` in chunks of the largest step; only the last samples.
std::vector<StepShape> PrefillChunks(const Program& program, uint32_t tokens, uint32_t chunk) {
  std::vector<StepShape> shapes;
  for (uint32_t done = 0; done < tokens; done += chunk) {
    StepShape shape = PrefillShape(program, std::min(chunk, tokens - done));
    for (MicrobatchShape& m : shape.microbatches) {
      m.attended += uint64_t{m.rows} * done;
      if (m.rows > 0) m.kv_tokens += done;
      if (done + chunk < tokens) m.sampled = 0;
    }
    shapes.push_back(std::move(shape));
  }
  return shapes;
}

}  // namespace

PhaseTraces RunPhases(Engine& engine, const Cell& cell, uint64_t seed,
                      const std::function<bool()>& interrupted) {
  PhaseTraces traces;
  if (cell.prefill) {
    traces.prefill = RunRequests(engine, 1, cell.prefill->tokens, 1, seed, interrupted);
  }
  if (cell.decode) {
    std::vector<StepTrace> steps =
        RunRequests(engine, cell.decode->sequences, cell.decode->context,
                    cell.decode->tokens + cell.decode->sequences + 1, seed + 1, interrupted);
    traces.decode = FullDecodeSteps(std::move(steps), cell.decode->tokens);
  }
  return traces;
}

PhaseResult SumPhase(const Engine& engine, const std::vector<StepTrace>& steps, ProgramKind phase,
                     const Cell& cell, const Rig* rig) {
  const PlannedRun& planned = engine.info().planned;
  const BlockGraph& graph = engine.model().blocks();
  PhaseResult result;
  FillHeader(result, cell, phase);
  std::map<uint32_t, LaneSum> lanes;
  Bytes counted, sampled;
  for (const StepTrace& step : steps) {
    uint32_t p = ProgramIndex(planned.plan, step.phase, step.lane);
    const Program& program = planned.plan.programs[p];
    const ProgramInfo& info = planned.verified.programs[p];
    const Rig& used = rig == nullptr ? engine.options().rig : *rig;
    Timeline laid = step.timeline;
    Nanos length = step.length;
    if (rig != nullptr) {
      laid = LaySchedule(graph, planned.plan, program, info, step.shape, *rig, step.op_times,
                         cell.gpu.fuse_collectives);
      length = laid.length;
    }
    AddStepTraffic(result, graph, planned.plan, program, info, step.shape, used);
    LaneSum& lane = lanes[step.lane];
    lane.time += length;
    lane.tokens += phase == ProgramKind::kPrefill ? step.shape.rows() : step.sequences;
    AddAttribution(lane.attribution, laid.devices);
    result.link_busy += laid.link_busy;
    result.step_times.push_back(length);
    result.clipped_ops += step.clipped_ops;
    ++result.steps;
    counted += step.counted;
    sampled += step.sampled;
  }
  if (rig == nullptr) HoldToCount(result, counted, sampled, phase);
  bool side_by_side = engine.clock().IsVirtual();
  MergeLanes(lanes, side_by_side, result);
  for (const auto& [id, lane] : lanes) {
    result.tokens += static_cast<uint32_t>(lane.tokens);
    Nanos time = side_by_side ? lane.time : result.time;
    if (time.value > 0) result.tokens_per_s += static_cast<double>(lane.tokens) / time.Seconds();
  }
  result.link_share = LinkShare(result);
  return result;
}

std::optional<PhaseResult> PredictPhase(const BlockGraph& graph, const PlannedRun& planned,
                                        const Rig& rig, const Cell& cell, ProgramKind phase) {
  bool prefill = phase == ProgramKind::kPrefill;
  if (prefill ? !cell.prefill : !cell.decode) return std::nullopt;
  PhaseResult result;
  FillHeader(result, cell, phase);
  uint32_t lanes = prefill ? 1 : std::min(planned.plan.n_lanes, cell.decode->sequences);
  std::map<uint32_t, LaneSum> sums;
  for (uint32_t lane = 0; lane < lanes; ++lane) {
    uint32_t p = ProgramIndex(planned.plan, phase, lane);
    const Program& program = planned.plan.programs[p];
    // Sequences spread over lanes as evenly as they go.
    uint32_t sequences = prefill ? 1 : (cell.decode->sequences + lanes - 1 - lane) / lanes;
    std::vector<StepShape> shapes;
    if (prefill) {
      shapes = PrefillChunks(program, cell.prefill->tokens, cell.limits.max_step_tokens);
    } else {
      shapes.assign(
          cell.decode->tokens,
          DecodeShape(program, sequences, cell.decode->context + cell.decode->tokens / 2 + 1));
    }
    Price price;
    for (size_t i = 0; i < shapes.size(); ++i) {
      // Decode steps are alike: one price serves all.
      if (i == 0 || prefill) {
        const ProductRates rates =
            RatesOfProducts(rig, cell.gpu, program, shapes[i], cell.limits.max_step_tokens);
        if (!rates.unknown.empty()) return std::nullopt;
        price =
            PriceStep(graph, planned.plan, program, planned.verified.programs[p], shapes[i], rig,
                      {.product_efficiency = rates.efficiency,
                       .fuse_collectives = cell.gpu.fuse_collectives});
      }
      AddStepTraffic(result, graph, planned.plan, program, planned.verified.programs[p], shapes[i],
                     rig);
      sums[lane].time += price.timeline.length;
      sums[lane].tokens += prefill ? shapes[i].rows() : sequences;
      AddAttribution(sums[lane].attribution, price.timeline.devices);
      result.link_busy += price.timeline.link_busy;
      result.step_times.push_back(price.timeline.length);
      ++result.steps;
    }
  }
  MergeLanes(sums, /*side_by_side=*/true, result);
  for (const auto& [id, lane] : sums) {
    result.tokens += static_cast<uint32_t>(lane.tokens);
    if (lane.time.value > 0)
      result.tokens_per_s += static_cast<double>(lane.tokens) / lane.time.Seconds();
  }
  result.link_share = LinkShare(result);
  return result;
}

}  // namespace tandem
