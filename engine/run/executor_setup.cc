// Making an executor: transports and their self-test, weights, programs, KV, arenas, scratch.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/link/peer_probe.h"
#include "engine/link/self_test.h"
#include "engine/plan/memory.h"
#include "engine/run/executor.h"

namespace tandem {
namespace {

// `angles` must outlive the result.
RopeParams RopeOf(const ModelConfig& config, const RopeAngles& angles) {
  return RopeParams{.rope_dim = config.rope_dim,
                    .theta = config.rope_theta,
                    .scale = config.rope_scale,
                    .interleaved = config.rope_interleaved,
                    .frequencies = angles.frequencies,
                    .magnitude = angles.magnitude};
}

bool Moves(OpKind kind) {
  return kind == OpKind::kAllReduce || kind == OpKind::kReduceScatter ||
         kind == OpKind::kAllGather || kind == OpKind::kTransfer || kind == OpKind::kFetch ||
         kind == OpKind::kKvMove;
}

// The block whose values a movement carries, for the ledger.
BlockId MovedBlock(const Op& op, const ProgramInfo& info) {
  return op.in.empty() ? op.block : info.values[op.in[0]].block;
}

}  // namespace

Executor::Executor(const ExecutorSetup& setup)
    : setup_(setup),
      graph_(setup.model->blocks()),
      devices_(setup.backend->devices()),
      rope_angles_(RopeAnglesOf(graph_.config)),
      rope_(RopeOf(graph_.config, rope_angles_)) {
  for (size_t d = 0; d < devices_.size(); ++d) ops_.push_back(&setup.backend->ops(d));
  MakeTransports();
  weights_ = std::make_unique<WeightStore>(*setup.model, *setup.plan, *setup.backend,
                                           PageLockedForSteps());
  CompilePrograms();
  MakeRings();
  MakeKv();
  SizeArenas();
  CutScratch();
  MakeOrder();
  MakeGraphs();
  SizeScoring();
  SumStepWeights();
}

// What steps take of the host's page-locked memory; its processor's values are there too.
Bytes Executor::PageLockedForSteps() const {
  Bytes bytes;
  for (const MemoryRow& row : setup_.verified->memory.rows) {
    if (setup_.rig->OnHost(row.device)) bytes += row.activations + row.workspace + row.links;
  }
  return bytes;
}

Transport* Executor::TransportFor(PathKind requested) {
  const PathKind path = setup_.rig->ResolvePath(requested);
  for (const auto& transport : transports_) {
    if (transport->path() == path) return transport.get();
  }
  std::unique_ptr<Transport> made = setup_.backend->MakeTransport(path);
  if (setup_.wrap_transport) made = setup_.wrap_transport(std::move(made));
  transports_.push_back(std::move(made));
  return transports_.back().get();
}

// The host's own, where the host or its processor is an end.
Transport* Executor::TransportOf(const Op& op) {
  const bool on_host =
      op.kind == OpKind::kSample || std::any_of(op.devices.begin(), op.devices.end(),
                                                [&](DeviceId d) { return setup_.rig->OnHost(d); });
  return on_host ? host_transport_.get() : TransportFor(op.path);
}

void Executor::MakeTransports() {
  host_transport_ = setup_.backend->MakeHostTransport(setup_.rig->HostPath());
  if (setup_.wrap_transport) host_transport_ = setup_.wrap_transport(std::move(host_transport_));
  // Every direction of every path in use, in a fixed order.
  std::map<std::tuple<DeviceId, DeviceId, PathKind>, Transport*> directions;
  for (const Program& program : setup_.plan->programs) {
    for (const Op& op : program.ops) {
      if (!Moves(op.kind)) continue;
      for (DeviceId a : op.devices) {
        for (DeviceId b : op.devices) {
          if (a == b || b.IsHost()) continue;
          Transport* transport = TransportOf(op);
          directions[{a, b, transport->path()}] = transport;
        }
      }
    }
  }
  auto device = [&](DeviceId id) -> Device& {
    return id.IsHost() ? setup_.backend->host() : *devices_[DeviceIndex(id)];
  };
  auto name = [](DeviceId id) { return id.IsHost() ? "host" : fmt::format("d{}", id.value); };
  for (const auto& [direction, transport] : directions) {
    const auto& [from, to, path] = direction;
    SelfTestPath(*transport, device(from), device(to));
    if (!from.IsHost() && from > to) continue;  // named with its other direction
    std::string text = fmt::format("{}-{} {}", name(from), name(to), ToString(path));
    if (transport->mechanism() != path) {
      text += fmt::format(" (by {})", ToString(transport->mechanism()));
    }
    if (const std::string detail = transport->detail(); !detail.empty()) {
      text += fmt::format(" ({})", detail);
    }
    transport_names_.push_back(std::move(text));
  }
  for (const auto& transport : transports_) CheckSums(*transport, devices_);
}

std::string Executor::windows() const {
  for (const auto& transport : transports_) {
    if (std::string windows = transport->windows(); !windows.empty()) return windows;
  }
  return {};
}

void Executor::CompilePrograms() {
  const Plan& plan = *setup_.plan;
  for (size_t i = 0; i < plan.programs.size(); ++i) {
    const ProgramInfo& info = setup_.verified->programs[i];
    CompiledProgram compiled = CompileWeights(plan.programs[i], info, graph_, *weights_);
    for (CompiledOp& c : compiled.ops) {
      const Op& op = *c.op;
      c.moves_block = MovedBlock(op, info);
      if (op.kind == OpKind::kSample || Moves(op.kind)) c.transport = TransportOf(op);
      if (op.kind == OpKind::kKvMove) CheckKeyOrders(op);
    }
    programs_.push_back(std::move(compiled));
  }
}

void Executor::CheckKeyOrders(const Op& op) const {
  const Ops& from = *ops_[DeviceIndex(op.devices[0])];
  const Ops& to = *ops_[DeviceIndex(op.devices[1])];
  if (from.key_order() == to.key_order()) return;
  Fail(ErrorCode::kUnsupported,
       fmt::format("executor: the plan moves KV from d{} ({}) to d{} ({}), which keep keys in "
                   "different orders; attention whose KV moves must stay on devices of one kind",
                   op.devices[0].value, from.name(), op.devices[1].value, to.name()));
}

void Executor::MakeRings() {
  rings_.resize(devices_.size());
  for (const CompiledProgram& compiled : programs_) {
    for (const CompiledOp& c : compiled.ops) {
      if (c.fetch_from == nullptr || c.fetch_from->page_locked) continue;
      const size_t d = DeviceIndex(c.op->devices[1]);
      if (rings_[d] != nullptr) continue;
      if (copy_team_ == nullptr) {
        copy_team_ = std::make_unique<CopyTeam>(CopyTeam::UsefulThreads());
      }
      rings_[d] = std::make_unique<StagingRing>(setup_.backend->host(), *devices_[d], *copy_team_);
      transport_names_.push_back(
          fmt::format("host-d{} ring (weights that are not page-locked)", d));
    }
  }
}

void Executor::MakeKv() {
  std::vector<KvDemand> demands;
  for (const CompiledProgram& compiled : programs_) AppendKvDemands(compiled, graph_, demands);
  n_pages_ = setup_.limits.max_sequences * PagesFor(KvTokensPerSlot(setup_.limits));
  kv_ = std::make_unique<KvCache>(graph_, demands, n_pages_, devices_);
  for (CompiledProgram& compiled : programs_) BindKv(*kv_, compiled, graph_);
}

void Executor::SizeArenas() {
  const auto n_devices = static_cast<uint32_t>(devices_.size());
  layouts_.resize(programs_.size());
  std::vector<uint64_t> peak(n_devices, 0);
  for (size_t p = 0; p < programs_.size(); ++p) {
    const std::vector<MicrobatchShape> largest =
        LargestShapes(*programs_[p].program, setup_.limits);
    layouts_[p].largest = LargestLayout(*programs_[p].info, graph_, largest, n_devices);
    for (size_t d = 0; d < n_devices; ++d) {
      peak[d] = std::max(peak[d], layouts_[p].largest.peak[d]);
    }
  }
  const uint32_t most = std::max(setup_.limits.max_sequences, setup_.limits.max_step_tokens);
  // A device that runs no block needs scratch for messages and ids alone.
  std::vector<Bytes> scratch(n_devices, Bytes{kSmallWorkspace});
  for (const Program& program : setup_.plan->programs) {
    for (const Op& op : program.ops) {
      if (op.kind != OpKind::kRun) continue;
      scratch[DeviceIndex(op.devices[0])] = WorkspaceBytes(graph_, most);
    }
  }
  arenas_.resize(n_devices);
  scratch_.resize(n_devices);
  for (size_t d = 0; d < n_devices; ++d) {
    Device& device = *devices_[d];
    arenas_[d] = device.Allocate(MemoryUse::kActivations, Bytes{peak[d]}, "values of a step");
    scratch_[d] = device.Allocate(MemoryUse::kWorkspace, scratch[d], "scratch");
  }
  host_ids_ = setup_.backend->host().Allocate(MemoryUse::kWorkspace, Bytes{most * sizeof(int32_t)},
                                              "sampled ids");
}

void Executor::CutScratch() {
  for (const Buffer& scratch : scratch_) {
    const ScratchRoom whole{scratch.data(), scratch.size()};
    kernel_rooms_.push_back(whole);
    comm_rooms_.push_back(whole);
    if (!devices_[0]->works_alone()) continue;
    const uint64_t comm = whole.size / 4 / 64 * 64;
    comm_rooms_.back().size = comm;
    kernel_rooms_.back() = ScratchRoom{whole.data + comm, whole.size - comm};
  }
}

void Executor::MakeOrder() {
  if (!devices_[0]->works_alone()) return;
  order_ = std::make_unique<StepOrder>(graph_, programs_, devices_);
  ahead_ = std::make_unique<FetchAhead>(*setup_.plan, programs_, *order_);
  const uint64_t row_bytes = uint64_t{graph_.config.vocab} * sizeof(float);
  host_logits_ = setup_.backend->host().Allocate(
      MemoryUse::kWorkspace, Bytes{setup_.limits.max_sequences * row_bytes}, "logits to sample");
}

void Executor::SizeScoring() {
  max_scored_rows_.assign(setup_.plan->n_lanes, 1);
  for (size_t p = 0; p < programs_.size(); ++p) {
    const Program& program = *programs_[p].program;
    if (program.kind != ProgramKind::kPrefill) continue;
    const uint32_t count = program.microbatches;
    const bool by_sequence = program.microbatch_kind == MicrobatchKind::kBySequence;
    // One sequence of `rows` rows, all sampled: all in one microbatch, or cut evenly.
    const auto fits = [&](uint32_t rows) {
      MicrobatchShape shape{.rows = by_sequence ? rows : (rows + count - 1) / count};
      shape.sampled = shape.rows;
      const std::vector<MicrobatchShape> shapes(count, shape);
      ValueLayout layout =
          LargestLayout(*programs_[p].info, graph_, shapes, static_cast<uint32_t>(devices_.size()));
      if (!FitsArenas(layout)) return false;
      layouts_[p].scored = std::move(layout);
      layouts_[p].scored_shapes = shapes;
      return true;
    };
    uint32_t rows = 1;
    Check(fits(rows), "executor: a step of one row fits where the largest does");
    while (2 * rows <= setup_.limits.max_step_tokens && fits(2 * rows)) rows *= 2;
    max_scored_rows_[program.lane] = rows;
  }
}

void Executor::SumStepWeights() {
  for (const CompiledProgram& compiled : programs_) {
    std::vector<Bytes> sums(devices_.size());
    for (const CompiledOp& c : compiled.ops) {
      if (c.op->kind != OpKind::kRun || c.op->block.value == 0) continue;
      sums[DeviceIndex(c.op->devices[0])] += BlockOf(*c.op).UnitBytes(c.op->units);
    }
    step_weights_.push_back(std::move(sums));
  }
}

}  // namespace tandem
