#include "engine/plugin/host.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "engine/base/error.h"
#include "engine/plan/pricer.h"
#include "engine/plan/verifier.h"
#include "engine/plugin/abi.h"
#include "engine/plugin/objective.h"

namespace tandem {
namespace {

// A call refused for its form. Never leaves this file.
struct Refused {
  std::string why;
};
[[noreturn]] void Refuse(std::string why) { throw Refused{std::move(why)}; }

template <typename T>
T Read(const T* from, uint32_t size10, const char* name) {
  std::string why;
  std::optional<T> value = ReadGrown(from, size10, &why);
  if (!value) Refuse(fmt::format("{} {}", name, why));
  return *value;
}

void WantZero(uint32_t value, const char* field, const char* of) {
  if (value != 0) Refuse(fmt::format("{} = {} (want 0: {} does not use it)", field, value, of));
}

// What each kind of op uses of tandem_op.
struct Form {
  uint32_t devices;  // 0: any number, the ranks of a collective
  uint32_t max_in;   // of kinds with a fixed number of operands
  uint32_t out;
  bool microbatch, block, units, slot, movement;
};
Form FormOf(OpKind kind) {
  switch (kind) {
    case OpKind::kRun:
      return {1, 1, 1, true, true, true, false, false};
    case OpKind::kNorm:
      return {1, 1, 1, true, true, false, false, false};
    case OpKind::kAdd:
      return {1, 2, 1, true, true, false, false, false};
    case OpKind::kSample:
      return {1, 1, 0, true, false, false, false, false};
    case OpKind::kTransfer:
      return {2, 1, 1, true, false, false, false, true};
    case OpKind::kFetch:
      return {2, 0, 0, false, true, true, true, true};
    case OpKind::kKvMove:
      return {2, 0, 0, true, true, true, false, true};
    default:
      return {0, 0, 0, true, false, false, false, true};
  }
}

}  // namespace

PluginHost::PluginHost(const PlanProblem& problem, const PluginInfo& info, std::vector<Knob> knobs,
                       DiagSink diag)
    : problem_(problem),
      info_(info),
      knobs_(std::move(knobs)),
      diag_(std::move(diag)),
      view_(problem) {
  abi_.struct_size = sizeof(abi_);
  abi_.abi_major = TANDEM_ABI_MAJOR;
  abi_.abi_minor = TANDEM_ABI_MINOR;
  abi_.ctx = this;
  abi_.knob = [](void* ctx, const char* key) {
    return static_cast<PluginHost*>(ctx)->KnobValue(key);
  };
  abi_.supports = [](void* ctx, const char* feature) -> int32_t {
    return static_cast<PluginHost*>(ctx)->Supports(CleanText(feature, 64)) ? 1 : 0;
  };
  abi_.place = [](void* ctx, const tandem_place* place) {
    return Guard(ctx, "place", [&](PluginHost& host) { host.AddPlace(place); });
  };
  abi_.slot = [](void* ctx, const tandem_slot* slot, tandem_slot_id* out) {
    return Guard(ctx, "slot", [&](PluginHost& host) {
      if (out == nullptr) Refuse("out is null");
      *out = host.AddSlot(slot);
    });
  };
  abi_.program = [](void* ctx, const tandem_program* program) {
    return Guard(ctx, "program", [&](PluginHost& host) { host.OpenProgram(program); });
  };
  abi_.op = [](void* ctx, const tandem_op* op) {
    return Guard(ctx, "op", [&](PluginHost& host) { host.AppendOp(op); });
  };
  abi_.check = [](void* ctx) { return static_cast<PluginHost*>(ctx)->Check(nullptr); };
  abi_.price = [](void* ctx, tandem_price* out) {
    return static_cast<PluginHost*>(ctx)->Price(out);
  };
  abi_.reset = [](void* ctx) -> tandem_status {
    static_cast<PluginHost*>(ctx)->Reset();
    return TANDEM_OK;
  };
  abi_.diag = [](void* ctx, int32_t level, const char* text) {
    static_cast<PluginHost*>(ctx)->Diag(level, text);
  };
  Reset();
}

Plan PluginHost::Run(const tandem_plugin& plugin) {
  const tandem_status status = plugin.plan(view_.get(), &abi_);
  if (status != TANDEM_OK) {
    const std::string& said = !refusal_.empty() ? refusal_ : last_error_;
    const std::string text =
        fmt::format("plugin {}: gave up with status {}: {}", info_.name, status,
                    said.empty() ? "it gave no reason (a plugin should call diag)" : said);
    switch (status) {
      case TANDEM_INVALID:
        Fail(ErrorCode::kInvalidArgument, text);
      case TANDEM_UNSUPPORTED:
        Fail(ErrorCode::kUnsupported, text);
      case TANDEM_NO_FIT:
        Fail(ErrorCode::kPlan, text);
      default:
        Fail(ErrorCode::kPlugin, text);
    }
  }
  if (!refusal_.empty()) {
    Fail(ErrorCode::kPlugin,
         fmt::format("plugin {}: ignored that {} (a failed call must end plan(), or be dropped "
                     "with reset())",
                     info_.name, refusal_));
  }
  return draft_;
}

template <typename Body>
tandem_status PluginHost::Guard(void* ctx, const char* call, Body body) {
  PluginHost& host = *static_cast<PluginHost*>(ctx);
  ++host.call_;
  std::string why;
  try {
    body(host);
    return TANDEM_OK;
  } catch (const Refused& refused) {
    why = refused.why;
  } catch (const std::exception& error) {
    why = error.what();
  }
  if (host.refusal_.empty()) {
    host.refusal_ = fmt::format("call {} ({}) was refused: {}", host.call_, call, why);
  }
  return TANDEM_REFUSED;
}

const char* PluginHost::KnobValue(const char* key) const {
  if (key == nullptr) return nullptr;
  for (const Knob& knob : knobs_) {
    if (knob.key == key) return knob.value.c_str();
  }
  return nullptr;
}

bool PluginHost::Supports(const std::string& feature) const {
  static const char* const kFeatures[] = {"op.run",
                                          "op.norm",
                                          "op.add",
                                          "op.sample",
                                          "op.all_reduce",
                                          "op.all_gather",
                                          "op.fetch",
                                          "op.reduce_scatter",
                                          "op.transfer",
                                          "op.kv_move",
                                          "program.prefill",
                                          "program.decode",
                                          "algorithm.one_shot",
                                          "algorithm.two_shot"};
  for (const char* known : kFeatures) {
    if (feature == known) return true;
  }
  if (feature.starts_with("wire.")) return WireTypeFromName(feature.substr(5)).has_value();
  if (!feature.starts_with("path.")) return false;
  const std::optional<PathKind> path = PathKindFromName(feature.substr(5));
  if (!path) return false;
  try {
    problem_.rig->ResolvePath(*path);
    return true;
  } catch (const Error&) {
    return false;
  }
}

void PluginHost::AddPlace(const tandem_place* from) {
  const tandem_place place = Read(from, kPlaceSize10, "tandem_place");
  WantZero(place.reserved, "reserved", "ABI 1.0");
  if (place.unit_begin > place.unit_end) {
    Refuse(fmt::format("units [{}:{}) run backwards", place.unit_begin, place.unit_end));
  }
  if (place.device < TANDEM_HOST) Refuse(fmt::format("device {} (want 0.. or -1)", place.device));
  if (draft_.places.size() >= kMaxPlaces) Refuse(fmt::format("more than {} places", kMaxPlaces));
  draft_.places.push_back(
      {BlockId{place.block}, UnitRange{place.unit_begin, place.unit_end}, DeviceId{place.device}});
}

tandem_slot_id PluginHost::AddSlot(const tandem_slot* from) {
  const tandem_slot slot = Read(from, kSlotSize10, "tandem_slot");
  if (slot.device < 0)
    Refuse(fmt::format("device {} (want 0.., slots are on devices)", slot.device));
  if (draft_.slots.size() >= kMaxSlots) Refuse(fmt::format("more than {} slots", kMaxSlots));
  draft_.slots.push_back({DeviceId{slot.device}, Bytes{slot.bytes}});
  return static_cast<tandem_slot_id>(draft_.slots.size());
}

void PluginHost::OpenProgram(const tandem_program* from) {
  const tandem_program program = Read(from, kProgramSize10, "tandem_program");
  WantZero(program.reserved, "reserved", "ABI 1.0");
  const std::optional<ProgramKind> kind = ProgramKindFromAbi(program.kind);
  const std::optional<MicrobatchKind> split = MicrobatchKindFromAbi(program.microbatch_kind);
  if (!kind)
    Refuse(fmt::format("program kind {} (this host knows 1 PREFILL, 2 DECODE)", program.kind));
  if (!split) Refuse(fmt::format("microbatch kind {} (want 0 to 2)", program.microbatch_kind));
  if (program.lane >= kMaxLanes)
    Refuse(fmt::format("lane {} (want < {})", program.lane, kMaxLanes));
  if (program.microbatches < 1 || program.microbatches > kMaxMicrobatches) {
    Refuse(fmt::format("{} microbatches (want 1 to {})", program.microbatches, kMaxMicrobatches));
  }
  if (draft_.programs.size() >= kMaxPrograms) {
    Refuse(fmt::format("more than {} programs", kMaxPrograms));
  }
  draft_.programs.push_back({*kind, program.lane, program.microbatches, *split, {}});
  draft_.n_lanes = std::max(draft_.n_lanes, program.lane + 1);
  value_base_ += n_values_;
  n_values_ = 0;
}

void PluginHost::AppendOp(const tandem_op* from) {
  const tandem_op given = Read(from, kOpSize10, "tandem_op");
  const std::optional<OpKind> kind = OpKindFromAbi(given.kind);
  if (!kind) {
    Refuse(fmt::format("op kind {} (ABI {}.{} has no such op)", given.kind, TANDEM_ABI_MAJOR,
                       TANDEM_ABI_MINOR));
  }
  if (draft_.programs.empty()) Refuse("no program is open (call program() first)");
  if (n_ops_ >= kMaxOps) Refuse(fmt::format("more than {} ops", kMaxOps));

  Op op = ReadOp(given, *kind);
  const bool collective = FormOf(*kind).devices == 0;
  const uint32_t n_out = collective ? given.n_devices : FormOf(*kind).out;
  if (given.n_out != n_out) {
    Refuse(fmt::format("{} gives {} values, n_out makes room for {}", ToString(*kind), n_out,
                       given.n_out));
  }
  if (n_out > 0 && given.out == nullptr) Refuse("out is null");
  for (uint32_t i = 0; i < n_out; ++i) {
    op.out.push_back(n_values_++);
    given.out[i] = value_base_ + n_values_;
  }
  op.plugin_call = call_;
  ++n_ops_;
  draft_.programs.back().ops.push_back(std::move(op));
}

Op PluginHost::ReadOp(const tandem_op& from, OpKind kind) const {
  const Form form = FormOf(kind);
  const char* name = ToString(kind);
  WantZero(from.reserved, "reserved", "ABI 1.0");
  if (!form.microbatch) WantZero(from.microbatch, "microbatch", name);
  if (!form.block) WantZero(from.block, "block", name);
  if (!form.units) WantZero(from.unit_begin | from.unit_end, "units", name);
  if (!form.slot) WantZero(from.slot, "slot", name);
  if (kind != OpKind::kAllReduce) WantZero(from.algorithm, "algorithm", name);
  if (from.unit_begin > from.unit_end) {
    Refuse(fmt::format("units [{}:{}) run backwards", from.unit_begin, from.unit_end));
  }
  if (form.slot && (from.slot < 1 || from.slot > draft_.slots.size())) {
    Refuse(fmt::format("slot {} (want an id that slot() gave, 1 to {})", from.slot,
                       draft_.slots.size()));
  }

  Op op;
  op.kind = kind;
  op.microbatch = from.microbatch;
  op.block = BlockId{from.block};
  op.units = UnitRange{from.unit_begin, from.unit_end};
  if (form.slot) op.slot = from.slot - 1;
  ReadOperands(from, &op);
  ReadMovement(from, &op);
  return op;
}

void PluginHost::ReadMovement(const tandem_op& from, Op* op) const {
  const bool movement = FormOf(op->kind).movement;
  if (from.queue != TANDEM_QUEUE_DEFAULT) {
    op->queue = QueueKindFromAbi(from.queue);
    if (!op->queue) Refuse(fmt::format("queue {} (want 0 to 4)", from.queue));
  }
  const std::optional<Algorithm> algorithm = AlgorithmFromAbi(from.algorithm);
  if (!algorithm) Refuse(fmt::format("algorithm {} (want 0 to 2)", from.algorithm));
  op->algorithm = *algorithm;

  const std::optional<PathKind> path = PathKindFromAbi(from.path);
  if (!path) Refuse(fmt::format("path {} (want 0 to 5)", from.path));
  const bool to_device = movement && !op->devices[0].IsHost();
  if (!to_device) {
    WantZero(from.path, "path", movement ? "FETCH from the host" : ToString(op->kind));
    return;
  }
  // Every movement between devices takes the path that was asked for.
  if (*path != PathKind::kAuto && problem_.path != PathKind::kAuto && *path != problem_.path) {
    Refuse(fmt::format("path {} (the problem asks for {}; leave it AUTO)", ToString(*path),
                       ToString(problem_.path)));
  }
  op->path = *path == PathKind::kAuto ? problem_.path : *path;
}

void PluginHost::ReadOperands(const tandem_op& from, Op* op) const {
  const Form form = FormOf(op->kind);
  const bool collective = form.devices == 0;
  const uint32_t most = collective ? kMaxOperands : form.devices;
  const uint32_t least = collective ? 1 : form.devices;
  if (from.n_devices < least || from.n_devices > most) {
    Refuse(fmt::format("{} over {} devices (want {} to {})", ToString(op->kind), from.n_devices,
                       least, most));
  }
  // EMBED's RUN starts from token ids and takes no value.
  uint32_t n_in = collective ? from.n_devices : form.max_in;
  if (op->kind == OpKind::kRun && op->block.value == 0) n_in = 0;
  if (from.n_in != n_in) {
    Refuse(fmt::format("{} takes {} values, n_in is {}", ToString(op->kind), n_in, from.n_in));
  }
  if (from.devices == nullptr || (n_in > 0 && from.in == nullptr)) Refuse("devices or in is null");
  for (tandem_device_id device : std::span(from.devices, from.n_devices)) {
    if (device < TANDEM_HOST) Refuse(fmt::format("device {} (want 0.. or -1)", device));
    op->devices.push_back(DeviceId{device});
  }
  for (uint32_t i = 0; i < n_in; ++i) {
    const tandem_value id = from.in[i];
    if (id <= value_base_ || id > value_base_ + n_values_) {
      Refuse(
          fmt::format("operand {} is value id {}, which this program's ops have not given", i, id));
    }
    op->in.push_back(id - value_base_ - 1);
  }
}

tandem_status PluginHost::Check(VerifyResult* verified) noexcept {
  if (!refusal_.empty()) return TANDEM_REFUSED;
  try {
    VerifyResult result = VerifyPlan(draft_, *problem_.graph, *problem_.rig, problem_.limits);
    if (!result.ok()) {
      last_error_ = result.refusal->message;
      return result.refusal->rule == "memory" ? TANDEM_NO_FIT : TANDEM_REFUSED;
    }
    if (verified != nullptr) *verified = std::move(result);
    return TANDEM_OK;
  } catch (const std::exception& error) {
    last_error_ = error.what();
    return TANDEM_REFUSED;
  }
}

tandem_status PluginHost::Price(tandem_price* out) noexcept {
  try {
    std::string why;
    if (!ReadGrown(out, kPriceSize10, &why)) {
      last_error_ = "tandem_price " + why;
      return TANDEM_REFUSED;
    }
    VerifyResult verified;
    const tandem_status status = Check(&verified);
    if (status != TANDEM_OK) return status;
    const StepPrices prices = PriceFirstLane(problem_, draft_, verified);
    out->prefill_seconds = prices.prefill.Seconds();
    out->decode_seconds = prices.decode.Seconds();
    if (out->struct_size >= sizeof(tandem_price)) {
      out->full_decode_seconds = prices.full_decode.Seconds();
    }
    return TANDEM_OK;
  } catch (const std::exception& error) {
    last_error_ = error.what();
    return TANDEM_REFUSED;
  }
}

void PluginHost::Reset() {
  draft_ = Plan{};
  draft_.plugin = info_.name;
  draft_.plugin_version = info_.version;
  draft_.n_devices = problem_.rig->size();
  draft_.wire = problem_.wire;
  draft_.knobs = knobs_;
  // Ids stay unique over resets, so that a stale one is never taken for a live one.
  value_base_ += n_values_;
  n_values_ = 0;
  n_ops_ = 0;
  call_ = 0;
  refusal_.clear();
}

void PluginHost::Diag(int32_t level, const char* text) {
  const std::string clean = CleanText(text, 2000);
  if (level == TANDEM_DIAG_ERROR) last_error_ = clean;
  ++n_diags_;
  if (n_diags_ <= kMaxDiags) diag_(level, clean);
  if (n_diags_ == kMaxDiags) diag_(TANDEM_DIAG_WARNING, "(further messages dropped)");
}

}  // namespace tandem
