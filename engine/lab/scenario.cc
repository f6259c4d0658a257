// Reads a scenario and multiplies its axes out into cells.
#include "engine/lab/scenario.h"

#include <fmt/core.h>

#include <charconv>
#include <filesystem>
#include <functional>

#include "engine/base/error.h"
#include "engine/rig/yaml_reader.h"

namespace tandem {
namespace {

constexpr size_t kMaxCells = 10000;
constexpr size_t kMaxRange = 1000;

// One way a cell can differ: an axis, the label of a value, and what it sets.
struct Choice {
  std::string label;
  std::function<void(Cell&)> apply;
};
struct Axis {
  std::string name;
  std::vector<Choice> choices;
};

std::vector<YamlValue> OneOrMany(const YamlValue& value) {
  std::vector<YamlValue> values =
      value.IsSequence() ? value.AsSequence() : std::vector<YamlValue>{value};
  if (values.empty()) value.FailHere("an empty list; give at least one value");
  return values;
}

// "first..last*factor", "first..last+step", or a plain number.
std::vector<double> ExpandNumber(const YamlValue& value) {
  std::string text = value.AsString();
  size_t dots = text.find("..");
  if (dots == std::string::npos) return {value.AsDouble()};
  size_t op = text.find_first_of("*+", dots);
  auto number = [&](std::string_view part) {
    double x = 0;
    auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), x);
    if (error != std::errc() || end != part.data() + part.size()) {
      value.FailHere(fmt::format("'{}': want first..last*factor or first..last+step", text));
    }
    return x;
  };
  std::string_view view = text;
  double first = number(view.substr(0, dots));
  double last = number(view.substr(dots + 2, op == std::string::npos ? op : op - dots - 2));
  bool multiply = op != std::string::npos && text[op] == '*';
  double step = op == std::string::npos ? 1 : number(view.substr(op + 1));
  if (last < first || step <= 0 || (multiply && (step <= 1 || first <= 0))) {
    value.FailHere(fmt::format("'{}': a range must rise from first to last", text));
  }
  std::vector<double> numbers;
  for (double x = first; x <= last * (1 + 1e-12); x = multiply ? x * step : x + step) {
    numbers.push_back(x);
    if (numbers.size() > kMaxRange)
      value.FailHere(fmt::format("'{}': more than {} values", text, kMaxRange));
  }
  return numbers;
}

std::string NumberLabel(double x) {
  return x == static_cast<double>(static_cast<int64_t>(x))
             ? fmt::format("{}", static_cast<int64_t>(x))
             : fmt::format("{}", x);
}

// An axis of numbers within [low, high]; `whole` refuses fractions.
void AddNumbers(std::vector<Axis>& axes, YamlMap& map, const std::string& key,
                const std::string& axis_name, double low, double high, bool whole,
                const std::function<void(Cell&, double)>& set) {
  std::optional<YamlValue> found = map.Get(key);
  if (!found) return;
  Axis axis{axis_name, {}};
  for (const YamlValue& value : OneOrMany(*found)) {
    for (double x : ExpandNumber(value)) {
      bool fits =
          x >= low && x <= high && (!whole || x == static_cast<double>(static_cast<int64_t>(x)));
      if (!fits) {
        value.FailHere(fmt::format("got {}, want {} from {} to {}", NumberLabel(x),
                                   whole ? "a whole number" : "a number", NumberLabel(low),
                                   NumberLabel(high)));
      }
      axis.choices.push_back({NumberLabel(x), [set, x](Cell& cell) { set(cell, x); }});
    }
  }
  axes.push_back(std::move(axis));
}

// An axis of words; `set` may refuse one through the value it is given.
void AddWords(std::vector<Axis>& axes, YamlMap& map, const std::string& key,
              const std::function<void(Cell&, const std::string&)>& set,
              const std::function<void(const YamlValue&, const std::string&)>& check = nullptr) {
  std::optional<YamlValue> found = map.Get(key);
  if (!found) return;
  Axis axis{key, {}};
  for (const YamlValue& value : OneOrMany(*found)) {
    std::string word = value.AsString();
    if (word.empty()) value.FailHere("an empty value");
    if (check) check(value, word);
    axis.choices.push_back({word, [set, word](Cell& cell) { set(cell, word); }});
  }
  axes.push_back(std::move(axis));
}

void AddPlugins(std::vector<Axis>& axes, YamlMap& map) {
  Axis axis{"plugin", {}};
  for (const YamlValue& value : OneOrMany(map.Require("plugin"))) {
    PluginChoice choice;
    if (value.IsMap()) {
      YamlMap entry = value.AsMap();
      choice.name = entry.String("name");
      // Which knobs exist is the plugin's to say; the planner refuses others.
      for (const std::string& key : entry.Keys()) {
        if (key != "name") choice.knobs.push_back({key, entry.Require(key).AsString()});
      }
      entry.Finish();
    } else {
      choice.name = value.AsString();
    }
    axis.choices.push_back({choice.Label(), [choice](Cell& cell) { cell.plugin = choice; }});
  }
  axes.push_back(std::move(axis));
}

std::vector<double> ParseShares(const YamlValue& value, const std::string& text) {
  std::vector<double> shares;
  size_t at = 0;
  while (at <= text.size()) {
    size_t comma = std::min(text.find(',', at), text.size());
    double x = 0;
    auto [end, error] = std::from_chars(text.data() + at, text.data() + comma, x);
    if (error != std::errc() || end != text.data() + comma || x < 0) {
      value.FailHere(fmt::format("'{}': want shares such as 2,1", text));
    }
    shares.push_back(x);
    at = comma + 1;
  }
  return shares;
}

void AddPhases(std::vector<Axis>& axes, YamlMap& root, Cell& base) {
  std::optional<YamlValue> found = root.Get("phases");
  if (!found) return;
  YamlMap phases = found->AsMap();
  if (std::optional<YamlValue> value = phases.Get("prefill")) {
    base.prefill.emplace();
    YamlMap map = value->AsMap();
    AddNumbers(axes, map, "tokens", "prefill_tokens", 1, 1e6, true,
               [](Cell& c, double x) { c.prefill->tokens = static_cast<uint32_t>(x); });
    map.Finish();
  }
  if (std::optional<YamlValue> value = phases.Get("decode")) {
    base.decode.emplace();
    YamlMap map = value->AsMap();
    AddNumbers(axes, map, "context", "decode_context", 1, 1e7, true,
               [](Cell& c, double x) { c.decode->context = static_cast<uint32_t>(x); });
    AddNumbers(axes, map, "tokens", "decode_tokens", 1, 1e6, true,
               [](Cell& c, double x) { c.decode->tokens = static_cast<uint32_t>(x); });
    AddNumbers(axes, map, "sequences", "sequences", 1, 4096, true,
               [](Cell& c, double x) { c.decode->sequences = static_cast<uint32_t>(x); });
    map.Finish();
  }
  phases.Finish();
  if (!base.prefill && !base.decode) found->FailHere("want prefill, decode or both");
}

void AddWorkload(std::vector<Axis>& axes, YamlMap& root, Cell& base) {
  std::optional<YamlValue> found = root.Get("workload");
  if (!found) return;
  base.workload.emplace();
  WorkloadSpec& spec = *base.workload;
  YamlMap map = found->AsMap();
  spec.loop = map.String("loop", spec.loop);
  if (spec.loop != "open" && spec.loop != "closed") {
    found->FailHere(fmt::format("loop: got '{}', want open or closed", spec.loop));
  }
  AddWords(
      axes, map, "client", [](Cell& c, const std::string& w) { c.workload->client = w; },
      [](const YamlValue& value, const std::string& w) {
        if (w != "in_process" && w != "http")
          value.FailHere(fmt::format("got '{}', want in_process or http", w));
      });
  AddNumbers(axes, map, "rate", "rate", 1e-6, 1e9, false,
             [](Cell& c, double x) { c.workload->rate = x; });
  AddNumbers(axes, map, "concurrency", "concurrency", 1, 4096, true,
             [](Cell& c, double x) { c.workload->concurrency = static_cast<uint32_t>(x); });
  AddNumbers(axes, map, "requests", "requests", 1, 1e6, true,
             [](Cell& c, double x) { c.workload->requests = static_cast<uint32_t>(x); });
  AddNumbers(axes, map, "prompt_tokens", "prompt_tokens", 1, 1e6, true,
             [](Cell& c, double x) { c.workload->prompt_tokens = static_cast<uint32_t>(x); });
  AddNumbers(axes, map, "output_tokens", "output_tokens", 1, 1e6, true,
             [](Cell& c, double x) { c.workload->output_tokens = static_cast<uint32_t>(x); });
  map.Finish();
}

void AddGpuSwitches(std::vector<Axis>& axes, YamlMap& root) {
  for (const GpuSwitch& s : AllGpuSwitches()) {
    AddWords(
        axes, root, s.key, [&s](Cell& c, const std::string& w) { s.Set(c.gpu, w); },
        [&s](const YamlValue& value, const std::string& w) {
          GpuSwitches scratch;
          if (!s.Set(scratch, w)) value.FailHere(fmt::format("got '{}', want {}", w, s.Wanted()));
        });
  }
}

void AddSettings(std::vector<Axis>& axes, YamlMap& root) {
  AddWords(axes, root, "model", [](Cell& c, const std::string& w) { c.model = w; });
  AddWords(axes, root, "rig", [](Cell& c, const std::string& w) { c.rig = w; });
  AddNumbers(axes, root, "devices", "devices", 1, 16, true,
             [](Cell& c, double x) { c.devices = static_cast<uint32_t>(x); });
  AddWords(axes, root, "link", [](Cell& c, const std::string& w) { c.link = w; });
  AddPlugins(axes, root);
  if (std::optional<YamlValue> value = root.Get("tensor_split")) {
    Axis axis{"tensor_split", {}};
    for (const YamlValue& one : OneOrMany(*value)) {
      std::string text = one.AsString();
      std::vector<double> shares = ParseShares(one, text);
      axis.choices.push_back({text, [shares](Cell& c) { c.tensor_split = shares; }});
    }
    axes.push_back(std::move(axis));
  }
  AddWords(
      axes, root, "wire", [](Cell& c, const std::string& w) { c.wire = *WireTypeFromName(w); },
      [](const YamlValue& value, const std::string& w) {
        if (!WireTypeFromName(w)) value.FailHere(fmt::format("got '{}', want f32, bf16 or q8", w));
      });
  AddWords(
      axes, root, "path", [](Cell& c, const std::string& w) { c.path = *PathKindFromName(w); },
      [](const YamlValue& value, const std::string& w) {
        if (!PathKindFromName(w)) {
          value.FailHere(
              fmt::format("got '{}', want auto, local, copy, p2p, host_staged or nccl", w));
        }
      });
  AddWords(
      axes, root, "activations",
      [](Cell& c, const std::string& w) {
        c.activations = w == "f32" ? ActivationType::kF32 : ActivationType::kInt8;
      },
      [](const YamlValue& value, const std::string& w) {
        if (w != "f32" && w != "int8") value.FailHere(fmt::format("got '{}', want int8 or f32", w));
      });
  AddGpuSwitches(axes, root);
}

bool EitherWord(YamlMap& root, const std::string& key, const std::string& fallback,
                const std::string& yes, const std::string& no) {
  std::optional<YamlValue> value = root.Get(key);
  std::string word = value ? value->AsString() : fallback;
  if (word != yes && word != no)
    value->FailHere(fmt::format("got '{}', want {} or {}", word, yes, no));
  return word == yes;
}

uint32_t Count(YamlMap& root, const std::string& key, uint32_t fallback, int64_t low,
               int64_t high) {
  std::optional<YamlValue> value = root.Get(key);
  if (!value) return fallback;
  int64_t n = value->AsInt();
  if (n < low || n > high)
    value->FailHere(fmt::format("got {}, want a whole number from {} to {}", n, low, high));
  return static_cast<uint32_t>(n);
}

// Slots and context that a cell's work needs, where the scenario does not say.
void FillLimits(Cell& cell, uint32_t context, uint32_t slots, uint32_t step_tokens) {
  uint32_t sequences = 1, longest = 1;
  if (cell.prefill) longest = std::max(longest, cell.prefill->tokens + 1);
  if (cell.decode) {
    sequences = std::max(sequences, cell.decode->sequences);
    // While the last prompts are read, the first sequences already decode: room for a step each.
    longest = std::max(longest, cell.decode->context + cell.decode->tokens + sequences + 2);
  }
  if (cell.workload) {
    sequences = cell.workload->loop == "closed" ? cell.workload->concurrency : 8;
    longest = std::max(longest, cell.workload->prompt_tokens + cell.workload->output_tokens);
  }
  cell.limits.max_sequences = slots != 0 ? slots : sequences;
  uint32_t pages = (longest + kPageTokens - 1) / kPageTokens;
  cell.limits.context = context != 0 ? context : pages * kPageTokens * cell.limits.max_sequences;
  cell.limits.max_step_tokens = step_tokens;
}

void Multiply(const std::vector<Axis>& axes, size_t at, Cell cell, std::vector<Cell>& out) {
  if (at == axes.size()) {
    out.push_back(std::move(cell));
    return;
  }
  for (const Choice& choice : axes[at].choices) {
    Cell next = cell;
    choice.apply(next);
    if (axes[at].choices.size() > 1 || axes[at].name == "plugin")
      next.axes.emplace_back(axes[at].name, choice.label);
    Multiply(axes, at + 1, std::move(next), out);
  }
}

}  // namespace

std::string PluginChoice::Label() const {
  std::string label = name;
  for (const Knob& knob : knobs) label += fmt::format(" {}={}", knob.key, knob.value);
  return label;
}

Scenario LoadScenario(const std::string& path, const std::vector<std::string>& overrides) {
  YamlDocument document = YamlDocument::Load(path);
  for (const std::string& text : overrides) {
    size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      Fail(ErrorCode::kInvalidArgument, fmt::format("--set {}: want dotted.path=value", text));
    }
    document.Override(text.substr(0, equals), text.substr(equals + 1));
  }
  YamlMap root = document.root().AsMap();
  Scenario scenario;
  scenario.name = std::filesystem::path(path).stem().string();
  scenario.question = root.String("question");
  std::vector<Axis> axes;
  Cell base;
  AddSettings(axes, root);
  AddPhases(axes, root, base);
  AddWorkload(axes, root, base);
  scenario.clock = EitherWord(root, "clock", "virtual", "virtual", "wall") ? ClockKind::kVirtual
                                                                           : ClockKind::kWall;
  scenario.op_times = EitherWord(root, "op_times", "measured", "measured", "modelled")
                          ? OpTimes::kMeasured
                          : OpTimes::kModelled;
  scenario.predicted = EitherWord(root, "fidelity", "emulated", "predicted", "emulated");
  scenario.shuffled = EitherWord(root, "order", "interleaved", "shuffled", "interleaved");
  scenario.repetitions = Count(root, "repetitions", scenario.repetitions, 1, 1000);
  scenario.warmup = Count(root, "warmup", scenario.warmup, 0, 100);
  scenario.seed = Count(root, "seed", 1, 0, 1LL << 31);
  scenario.threads = static_cast<int>(Count(root, "threads", 0, 0, 1024));
  uint32_t context = Count(root, "context", 0, 1, 1LL << 30);
  uint32_t slots = Count(root, "slots", 0, 1, 4096);
  uint32_t step_tokens = Count(root, "step_tokens", 512, 1, 65536);
  root.Finish();
  bool has_phases = base.prefill || base.decode;
  if (has_phases == base.workload.has_value()) {
    document.root().FailHere("want either phases or workload");
  }
  size_t product = 1;
  for (const Axis& axis : axes) product *= axis.choices.size();
  if (product > kMaxCells) {
    document.root().FailHere(fmt::format("{} cells; at most {}", product, kMaxCells));
  }
  Multiply(axes, 0, base, scenario.cells);
  for (Cell& cell : scenario.cells) {
    if (cell.model.empty()) cell.model = "smollm2-135m";
    if (cell.rig.empty()) cell.rig = "cpu";
    FillLimits(cell, context, slots, step_tokens);
  }
  return scenario;
}

}  // namespace tandem
