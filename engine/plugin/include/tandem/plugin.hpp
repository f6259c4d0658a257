// A C++20 wrapper of tandem/plugin.h: header only, compiled into the plugin, so no C++ type crosses
// the boundary. It checks every status, lets no exception out, and carries the idioms of splitting
// (chains, tensor layers, cuts by bytes); the C interface knows no strategy's name.
//
// A Draft lives for one plan() call, on its thread; the Values it hands out end with their program.
//
//   void Plan(tandem::plugin::Draft& d) {
//     d.PlaceAll(0);
//     for (uint32_t program : tandem::plugin::kPrograms) {
//       d.Program(program);
//       d.WholeChain(0);
//     }
//   }
//   extern "C" TANDEM_EXPORT const tandem_plugin* tandem_plugin_entry_v1(void) {
//     return tandem::plugin::Define<Plan>({.name = "single", .version = "1.0.0", .summary =
//     "..."});
//   }
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tandem/plugin.h"

namespace tandem::plugin {

inline constexpr uint32_t kPrograms[] = {TANDEM_PROGRAM_PREFILL, TANDEM_PROGRAM_DECODE};

// Thrown to give up. The shim turns it into its status and tells the host the text (unless the host
// refused a call itself: it then knows more).
class Failure : public std::runtime_error {
 public:
  Failure(tandem_status status, const std::string& text, bool host_knows = false)
      : std::runtime_error(text), status_(status), host_knows_(host_knows) {}
  tandem_status status() const { return status_; }
  bool host_knows() const { return host_knows_; }

 private:
  tandem_status status_;
  bool host_knows_;
};

// A half-open range of a block's units.
struct Units {
  uint32_t begin = 0;
  uint32_t end = 0;
  bool empty() const { return begin >= end; }
};

// A value of the open program, with what a plugin keeps asking of it.
struct Value {
  tandem_value id = 0;
  tandem_device_id device = 0;
  uint32_t microbatch = 0;
};
using Values = std::vector<Value>;  // of a collective: one a rank

struct Slot {
  tandem_slot_id id = 0;
  tandem_device_id device = 0;
};

struct ProgramOptions {
  uint32_t lane = 0;
  uint32_t microbatches = 1;
  uint32_t microbatch_kind = TANDEM_MICROBATCH_NONE;  // used when there are several
};

class Draft {
 public:
  Draft(const tandem_problem& problem, const tandem_host& host) : problem_(problem), host_(host) {}
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;

  // ---- The problem.

  const tandem_problem& problem() const { return problem_; }
  int32_t n_devices() const { return static_cast<int32_t>(problem_.n_devices); }
  uint32_t n_blocks() const { return problem_.n_blocks; }
  uint32_t n_layers() const { return problem_.n_layers; }
  uint32_t head() const { return problem_.n_blocks - 1; }
  static uint32_t attention(uint32_t layer) { return 1 + 2 * layer; }
  static uint32_t mlp(uint32_t layer) { return 2 + 2 * layer; }
  const tandem_block& block(uint32_t b) const { return *problem_.blocks[b]; }
  const tandem_device& device(int32_t d) const { return *problem_.devices[d]; }
  // The host's own processor beside cards; -1 where no device is that.
  tandem_device_id HostsProcessor() const {
    for (int32_t d = 0; d < n_devices(); ++d) {
      const tandem_device& at = device(d);
      if (at.struct_size > offsetof(tandem_device, on_host) && at.on_host == 1) return d;
    }
    return -1;
  }

  Units all(uint32_t b) const { return {0, block(b).units}; }
  // The units of block b that device d gets when they are shared out by the devices' shares: cuts
  // at round(units * cumulative share). Three units on two even devices give 2 and 1; more devices
  // than units leave some ranges empty.
  Units part(uint32_t b, int32_t d) const { return {UnitCut(b, d), UnitCut(b, d + 1)}; }

  uint64_t elems(uint32_t b, Units u) const { return ElemCut(b, u.end) - ElemCut(b, u.begin); }
  uint64_t weight_bytes(uint32_t b, Units u) const { return elems(b, u) * block(b).bytes_per_elem; }
  // Keys and values of these units at the full context.
  uint64_t kv_bytes(uint32_t b, Units u) const {
    return elems(b, u) * block(b).kv_bytes_per_elem_token * problem_.context;
  }

  // ---- Knobs and features.

  std::string Knob(const char* name) const {
    const char* text = host_.knob(host_.ctx, name);
    if (text == nullptr) throw Failure(TANDEM_ERROR, std::string("undeclared knob ") + name);
    return text;
  }
  int64_t IntKnob(const char* name, int64_t min, int64_t max) const {
    int64_t value = std::strtoll(Knob(name).c_str(), nullptr, 10);
    if (value >= min && value <= max) return value;
    throw Failure(TANDEM_INVALID, std::string("knob ") + name + ": " + std::to_string(value) +
                                      " (want " + std::to_string(min) + " to " +
                                      std::to_string(max) + ")");
  }
  double DoubleKnob(const char* name) const { return std::strtod(Knob(name).c_str(), nullptr); }
  bool BoolKnob(const char* name) const { return Knob(name) == "true"; }
  bool Supports(const char* feature) const { return host_.supports(host_.ctx, feature) == 1; }

  // ---- Placement.

  void Place(uint32_t b, Units u, tandem_device_id device) {
    if (u.empty()) return;
    tandem_place place = Sized<tandem_place>();
    place.block = b;
    place.unit_begin = u.begin;
    place.unit_end = u.end;
    place.device = device;
    Must(host_.place(host_.ctx, &place), "place");
  }
  void PlaceAll(tandem_device_id device) {
    for (uint32_t b = 0; b < n_blocks(); ++b) Place(b, all(b), device);
  }
  Slot NewSlot(tandem_device_id device, uint64_t bytes) {
    tandem_slot slot = Sized<tandem_slot>();
    slot.device = device;
    slot.bytes = bytes;
    Slot result{0, device};
    Must(host_.slot(host_.ctx, &slot, &result.id), "slot");
    return result;
  }

  // ---- Operations, one host call each.

  void Program(uint32_t kind, const ProgramOptions& options = {}) {
    tandem_program program = Sized<tandem_program>();
    program.kind = kind;
    program.lane = options.lane;
    program.microbatches = options.microbatches;
    program.microbatch_kind =
        options.microbatches > 1 ? options.microbatch_kind : uint32_t{TANDEM_MICROBATCH_NONE};
    Must(host_.program(host_.ctx, &program), "program");
  }

  Value RunEmbed(Units u, tandem_device_id device, uint32_t microbatch = 0) {
    return Compute(TANDEM_OP_RUN, 0, u, {}, {0, device, microbatch});
  }
  Value Run(uint32_t b, Units u, Value n) { return Compute(TANDEM_OP_RUN, b, u, {n.id}, n); }
  Value Norm(uint32_t b, Value x) { return Compute(TANDEM_OP_NORM, b, {}, {x.id}, x); }
  Value Add(uint32_t b, Value x, Value y) { return Compute(TANDEM_OP_ADD, b, {}, {x.id, y.id}, x); }
  void Sample(Value logits) {
    tandem_op op = NewOp(TANDEM_OP_SAMPLE, logits.microbatch);
    Emit(op, {logits.device}, {logits.id}, 0);
  }

  // Over one device there is nothing to reduce: the values themselves. One-shot for two devices,
  // two-shot beyond, unless the algorithm is named.
  Values AllReduce(const Values& partials, uint32_t algorithm = TANDEM_ALGORITHM_DEFAULT) {
    if (partials.size() > 2 && algorithm == TANDEM_ALGORITHM_DEFAULT) {
      algorithm = TANDEM_ALGORITHM_TWO_SHOT;
    } else if (algorithm == TANDEM_ALGORITHM_DEFAULT) {
      algorithm = TANDEM_ALGORITHM_ONE_SHOT;
    }
    return Collective(TANDEM_OP_ALL_REDUCE, partials, algorithm);
  }
  Values ReduceScatter(const Values& partials) {
    return Collective(TANDEM_OP_REDUCE_SCATTER, partials, 0);
  }
  Values AllGather(const Values& shards) { return Collective(TANDEM_OP_ALL_GATHER, shards, 0); }

  // To the device it is on already: the value itself.
  Value Transfer(Value v, tandem_device_id to) {
    if (v.device == to) return v;
    tandem_op op = NewOp(TANDEM_OP_TRANSFER, v.microbatch);
    return {Emit(op, {v.device, to}, {v.id}, 1)[0], to, v.microbatch};
  }
  void Fetch(uint32_t b, Units u, tandem_device_id from, Slot slot) {
    tandem_op op = NewOp(TANDEM_OP_FETCH, 0);
    op.block = b;
    op.unit_begin = u.begin;
    op.unit_end = u.end;
    op.slot = slot.id;
    Emit(op, {from, slot.device}, {}, 0);
  }
  void KvMove(uint32_t b, Units u, uint32_t microbatch, tandem_device_id from,
              tandem_device_id to) {
    tandem_op op = NewOp(TANDEM_OP_KV_MOVE, microbatch);
    op.block = b;
    op.unit_begin = u.begin;
    op.unit_end = u.end;
    Emit(op, {from, to}, {}, 0);
  }
  // Any op of the C interface, with fields that the calls above leave at their defaults.
  std::vector<tandem_value> Emit(tandem_op op, const std::vector<tandem_device_id>& devices,
                                 const std::vector<tandem_value>& in, uint32_t n_out) {
    std::vector<tandem_value> out(n_out);
    op.devices = devices.data();
    op.n_devices = static_cast<uint32_t>(devices.size());
    op.in = in.data();
    op.n_in = static_cast<uint32_t>(in.size());
    op.out = out.data();
    op.n_out = n_out;
    Must(host_.op(host_.ctx, &op), "op");
    return out;
  }
  static tandem_op NewOp(uint32_t kind, uint32_t microbatch) {
    tandem_op op = Sized<tandem_op>();
    op.kind = kind;
    op.microbatch = microbatch;
    return op;
  }

  // ---- Idioms.

  // X to the next X through one whole block on x's device.
  Value Step(uint32_t b, Value x) { return Add(b, x, Run(b, all(b), Norm(b, x))); }
  // HEAD and SAMPLE on x's device.
  void Finish(Value x) { Sample(Run(head(), all(head()), Norm(head(), x))); }
  // The whole model on one device.
  void WholeChain(tandem_device_id device, uint32_t microbatch = 0) {
    Value x = RunEmbed(all(0), device, microbatch);
    for (uint32_t b = 1; b < head(); ++b) x = Step(b, x);
    Finish(x);
  }

  // One block over every device by part(): partials of it, reduced.
  Values TensorBlock(uint32_t b, const Values& x) {
    Values y;
    for (Value v : x) y.push_back(Run(b, part(b, v.device), Norm(b, v)));
    y = AllReduce(y);
    Values next;
    for (size_t i = 0; i < x.size(); ++i) next.push_back(Add(b, x[i], y[i]));
    return next;
  }
  // Attention and MLP of one layer over every device.
  Values TensorLayer(uint32_t layer, const Values& x) {
    return TensorBlock(mlp(layer), TensorBlock(attention(layer), x));
  }
  // The embedding split by vocabulary: partial rows, summed.
  Values TensorEmbed(uint32_t microbatch = 0) {
    Values x;
    for (int32_t d = 0; d < n_devices(); ++d) x.push_back(RunEmbed(part(0, d), d, microbatch));
    return AllReduce(x);
  }
  // The head split by vocabulary: partial logits, gathered on every device, sampled on the first.
  void TensorFinish(const Values& x) {
    Values logits;
    for (Value v : x) logits.push_back(Run(head(), part(head(), v.device), Norm(head(), v)));
    Sample(AllGather(logits)[0]);
  }

  // A device for every block, never decreasing: the blocks laid end to end with these sizes, cut in
  // proportion to the devices' capacities, each layer (and EMBED, and HEAD) going to the device its
  // middle falls on. A device may get nothing.
  std::vector<tandem_device_id> CutByLayer(const std::vector<double>& block_size,
                                           const std::vector<double>& capacity) const {
    double total_size = 0;
    double total_capacity = 0;
    for (double s : block_size) total_size += s;
    for (double c : capacity) total_capacity += c;
    std::vector<tandem_device_id> home(block_size.size(), 0);
    double before = 0;
    double filled = capacity[0];
    tandem_device_id device = 0;
    for (uint32_t b = 0; b < n_blocks();) {
      const uint32_t end = b == 0 || b == head() ? b + 1 : b + 2;
      double size = 0;
      for (uint32_t i = b; i < end; ++i) size += block_size[i];
      const double middle = before + size / 2;
      while (device + 1 < n_devices() && middle * total_capacity >= filled * total_size) {
        filled += capacity[++device];
      }
      before += size;
      for (; b < end; ++b) home[b] = device;
    }
    return home;
  }

  // ---- Search.

  // Verifies the draft, a whole plan: false when it is right but does not fit.
  bool Fits() {
    const tandem_status status = host_.check(host_.ctx);
    if (status == TANDEM_NO_FIT) return false;
    Must(status, "check");
    return true;
  }
  // What the draft costs; nothing when it does not fit.
  std::optional<tandem_price> Price() {
    tandem_price price = Sized<tandem_price>();
    const tandem_status status = host_.price(host_.ctx, &price);
    if (status == TANDEM_NO_FIT) return std::nullopt;
    Must(status, "price");
    return price;
  }
  // Drops everything written so far.
  void Reset() { Must(host_.reset(host_.ctx), "reset"); }
  void Say(int32_t level, const std::string& text) { host_.diag(host_.ctx, level, text.c_str()); }

 private:
  template <typename T>
  static T Sized() {
    T t{};
    t.struct_size = sizeof(T);
    return t;
  }
  static void Must(tandem_status status, const char* call) {
    if (status != TANDEM_OK) throw Failure(status, std::string("refused: ") + call, true);
  }
  Value Compute(uint32_t kind, uint32_t b, Units u, const std::vector<tandem_value>& in, Value at) {
    tandem_op op = NewOp(kind, at.microbatch);
    op.block = b;
    op.unit_begin = u.begin;
    op.unit_end = u.end;
    return {Emit(op, {at.device}, in, 1)[0], at.device, at.microbatch};
  }
  Values Collective(uint32_t kind, const Values& in, uint32_t algorithm) {
    if (in.size() == 1) return in;
    tandem_op op = NewOp(kind, in[0].microbatch);
    op.algorithm = algorithm;
    std::vector<tandem_device_id> devices;
    std::vector<tandem_value> ids;
    for (Value v : in) {
      devices.push_back(v.device);
      ids.push_back(v.id);
    }
    Values out = in;
    std::vector<tandem_value> results = Emit(op, devices, ids, static_cast<uint32_t>(in.size()));
    for (size_t i = 0; i < out.size(); ++i) out[i].id = results[i];
    return out;
  }
  uint32_t UnitCut(uint32_t b, int32_t d) const {
    double before = 0;
    double total = 0;
    for (int32_t i = 0; i < n_devices(); ++i) {
      total += device(i).share;
      if (i < d) before += device(i).share;
    }
    return static_cast<uint32_t>(block(b).units * before / total + 0.5);
  }
  uint64_t ElemCut(uint32_t b, uint32_t unit) const {
    return std::min<uint64_t>(uint64_t{unit} * block(b).elems_per_unit, block(b).elems);
  }

  const tandem_problem& problem_;
  const tandem_host& host_;
};

// ---- Definition.

struct KnobInfo {
  const char* name;
  uint32_t type;
  const char* default_value;
  std::vector<const char*> grid;
  const char* help;
};

struct PluginInfo {
  const char* name;
  const char* version;
  const char* summary;
  std::vector<KnobInfo> knobs = {};
};

// plan() of the C interface around a C++ one: every exception ends here.
template <void (*Plan)(Draft&)>
tandem_status Shim(const tandem_problem* problem, const tandem_host* host) noexcept {
  try {
    Draft draft(*problem, *host);
    Plan(draft);
    return TANDEM_OK;
  } catch (const Failure& failure) {
    if (!failure.host_knows()) host->diag(host->ctx, TANDEM_DIAG_ERROR, failure.what());
    return failure.status();
  } catch (const std::exception& error) {
    host->diag(host->ctx, TANDEM_DIAG_ERROR, error.what());
  } catch (...) {
    host->diag(host->ctx, TANDEM_DIAG_ERROR, "threw something that is no std::exception");
  }
  return TANDEM_ERROR;
}

// The C descriptor and the storage it points to.
class Descriptor {
 public:
  Descriptor(PluginInfo info, tandem_status (*plan)(const tandem_problem*, const tandem_host*))
      : info_(std::move(info)) {
    knobs_.reserve(info_.knobs.size());
    for (const KnobInfo& k : info_.knobs) {
      knobs_.push_back({sizeof(tandem_knob), k.type, k.name, k.default_value, k.help, k.grid.data(),
                        static_cast<uint32_t>(k.grid.size()), 0});
      knob_pointers_.push_back(&knobs_.back());
    }
    plugin_ = {sizeof(tandem_plugin),
               TANDEM_ABI_MAJOR,
               TANDEM_ABI_MINOR,
               0,
               info_.name,
               info_.version,
               info_.summary,
               knob_pointers_.data(),
               static_cast<uint32_t>(knobs_.size()),
               0,
               plan};
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  const tandem_plugin* get() const { return &plugin_; }

 private:
  PluginInfo info_;
  std::vector<tandem_knob> knobs_;
  std::vector<const tandem_knob*> knob_pointers_;
  tandem_plugin plugin_;
};

// Made on the first call, so that loading a plugin runs nothing. Null when memory runs out.
template <void (*Plan)(Draft&)>
const tandem_plugin* Define(PluginInfo info) noexcept {
  try {
    static const Descriptor descriptor(std::move(info), &Shim<Plan>);
    return descriptor.get();
  } catch (...) {
    return nullptr;
  }
}

}  // namespace tandem::plugin
