// Reads a plan's text, which may be hand-written: every line is checked for form here, for sense by
// the verifier. See text.h for the format.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/suggest.h"
#include "engine/plan/text.h"

namespace tandem {
namespace {

constexpr size_t kMaxEntries = 1'000'000;  // ops of all programs; places; slots

template <typename Enum>
std::vector<std::string> Names(std::initializer_list<Enum> values) {
  std::vector<std::string> names;
  for (Enum value : values) names.emplace_back(ToString(value));
  return names;
}

// The words of one line, taken from left to right. Messages begin with "name:line: ".
class Line {
 public:
  Line(std::string_view text, std::string where) : where_(std::move(where)) { Split(text); }

  bool empty() const { return words_.empty(); }
  bool done() const { return next_ == words_.size(); }
  const std::string& Peek() const { return words_[next_]; }

  std::string Take(std::string_view wanted) {
    if (done()) FailHere(fmt::format("the line ends where {} was expected", wanted));
    return words_[next_++];
  }
  void Expect(std::string_view word) {
    std::string got = Take(fmt::format("'{}'", word));
    if (got != word) FailHere(fmt::format("got '{}' where '{}' was expected", got, word));
  }
  void End() const {
    if (!done()) FailHere(fmt::format("unexpected '{}' at the end of the line", Peek()));
  }

  template <typename Int>
  Int Number(std::string_view digits, std::string_view wanted, std::string_view word = {}) const {
    Int value{};
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (digits.empty() || digits[0] == '-' || error != std::errc{} ||
        end != digits.data() + digits.size()) {
      FailHere(fmt::format("got '{}' where {} was expected", word.empty() ? digits : word, wanted));
    }
    return value;
  }
  // "v31" with prefix 'v'.
  uint32_t Id(std::string_view word, char prefix, std::string_view wanted) const {
    if (word.empty() || word[0] != prefix) {
      FailHere(fmt::format("got '{}' where {} was expected", word, wanted));
    }
    return Number<uint32_t>(word.substr(1), wanted, word);
  }
  DeviceId Device(std::string_view word) const {
    if (word == "host") return kHost;
    uint32_t id = Id(word, 'd', "a device ('d0', 'd1', ... or 'host')");
    if (id > INT32_MAX) FailHere(fmt::format("device '{}' is out of range", word));
    return DeviceId{static_cast<int32_t>(id)};
  }
  // "b17[0:4)"; without "[...)" the units stay as they are.
  void BlockAndUnits(std::string_view word, BlockId& block, UnitRange& units) const {
    constexpr std::string_view kWanted = "a block and its units ('b17[0:4)')";
    size_t bracket = word.find('[');
    block.value = Id(word.substr(0, bracket), 'b', kWanted);
    if (bracket == std::string_view::npos) return;
    std::string_view range = word.substr(bracket + 1);
    size_t colon = range.find(':');
    if (colon == std::string_view::npos || range.back() != ')') {
      FailHere(fmt::format("got '{}' where {} was expected", word, kWanted));
    }
    units.begin = Number<uint32_t>(range.substr(0, colon), kWanted, word);
    units.end = Number<uint32_t>(range.substr(colon + 1, range.size() - colon - 2), kWanted, word);
  }
  template <typename Enum>
  Enum Name(const std::string& word, std::string_view what,
            std::initializer_list<Enum> values) const {
    for (Enum value : values) {
      if (word == ToString(value)) return value;
    }
    FailHere(fmt::format("unknown {} '{}'{}", what, word, DidYouMean(word, Names(values))));
  }

  [[noreturn]] void FailHere(const std::string& message) const {
    Fail(ErrorCode::kPlan, where_ + ": " + message);
  }

 private:
  void Split(std::string_view text) {
    size_t at = 0;
    while (at < text.size() && text[at] != '#') {
      if (text[at] == ' ' || text[at] == '\t' || text[at] == '\r') {
        ++at;
      } else if (text[at] == '"') {
        words_.push_back(Quoted(text, ++at));
      } else {
        size_t end = std::min(text.find_first_of(" \t\r#\"", at), text.size());
        words_.emplace_back(text.substr(at, end - at));
        at = end;
      }
    }
  }
  std::string Quoted(std::string_view text, size_t& at) const {
    std::string word;
    for (; at < text.size() && text[at] != '"'; ++at) {
      if (text[at] != '\\') {
        word += text[at];
      } else if (++at < text.size() && (text[at] == '"' || text[at] == '\\')) {
        word += text[at];
      } else if (at + 2 < text.size() && text[at] == 'x') {
        unsigned byte = 0;
        auto [end, error] = std::from_chars(&text[at + 1], &text[at + 1] + 2, byte, 16);
        if (error != std::errc{} || end != &text[at + 1] + 2) break;
        word += static_cast<char>(byte);
        at += 2;
      } else {
        break;
      }
    }
    if (at >= text.size() || text[at] != '"') {
      FailHere("a quoted word is not closed, or has an escape other than \\\", \\\\ and \\xNN");
    }
    ++at;
    return word;
  }

  std::string where_;
  std::vector<std::string> words_;
  size_t next_ = 0;
};

std::vector<DeviceId> ParseDevices(const Line& line, std::string_view word) {
  std::vector<DeviceId> devices;
  if (word == "-") return devices;
  while (true) {
    size_t arrow = word.find("->"), comma = word.find(',');
    size_t end = std::min({arrow, comma, word.size()});
    devices.push_back(line.Device(word.substr(0, end)));
    if (end == word.size()) return devices;
    word.remove_prefix(end + (arrow < comma ? 2 : 1));
  }
}

// What an op's line has said so far, to refuse a second saying.
struct Seen {
  bool block = false, units = false, microbatch = false, path = false, algorithm = false;
  bool call = false;
};

void ParseAttribute(const Line& line, const std::string& word, Op& op, Seen& seen) {
  auto once = [&](bool& flag) {
    if (flag) line.FailHere(fmt::format("'{}' says again what was said before", word));
    flag = true;
  };
  size_t equals = word.find('=');
  if (equals != std::string::npos) {
    std::string key = word.substr(0, equals), value = word.substr(equals + 1);
    if (key == "path") {
      once(seen.path);
      op.path = line.Name(value, "path",
                          {PathKind::kAuto, PathKind::kLocal, PathKind::kCopy, PathKind::kP2p,
                           PathKind::kHostStaged, PathKind::kNccl});
    } else if (key == "algorithm") {
      once(seen.algorithm);
      op.algorithm = line.Name(value, "algorithm",
                               {Algorithm::kNone, Algorithm::kOneShot, Algorithm::kTwoShot});
    } else if (key == "queue") {
      if (op.queue) line.FailHere(fmt::format("'{}' says again what was said before", word));
      op.queue = line.Name(
          value, "queue",
          {QueueKind::kCompute, QueueKind::kCopyIn, QueueKind::kCopyOut, QueueKind::kComm});
    } else if (key == "call") {
      once(seen.call);
      op.plugin_call = line.Number<uint32_t>(value, "a call number");
    } else {
      line.FailHere(
          fmt::format("unknown attribute '{}' (known: path, algorithm, queue, call)", key));
    }
    return;
  }
  switch (word.empty() ? '\0' : word[0]) {
    case 'b':
      once(seen.block);
      seen.units = word.find('[') != std::string::npos;
      return line.BlockAndUnits(word, op.block, op.units);
    case 'm':
      once(seen.microbatch);
      op.microbatch = line.Id(word, 'm', "a microbatch ('m0')");
      return;
    case 's':
      if (op.slot) line.FailHere(fmt::format("'{}' says again what was said before", word));
      op.slot = line.Id(word, 's', "a slot ('s0')");
      return;
    default:
      line.FailHere(
          fmt::format("unexpected '{}' (an op is: devices kind b0[0:1) m0 s0 key=value "
                      "<v0 >v1)",
                      word));
  }
}

Op ParseOp(Line& line) {
  Op op;
  op.devices = ParseDevices(line, line.Take("the op's devices"));
  op.kind =
      line.Name(line.Take("the op's kind"), "op",
                {OpKind::kRun, OpKind::kNorm, OpKind::kAdd, OpKind::kSample, OpKind::kAllReduce,
                 OpKind::kReduceScatter, OpKind::kAllGather, OpKind::kTransfer, OpKind::kFetch,
                 OpKind::kKvMove, OpKind::kReservedAllToAll, OpKind::kReservedKvShard});
  Seen seen;
  while (!line.done()) {
    std::string word = line.Take("an attribute");
    if (word[0] == '<') {
      if (!op.out.empty()) line.FailHere(fmt::format("operand '{}' comes after a result", word));
      op.in.push_back(line.Id(std::string_view(word).substr(1), 'v', "an operand ('<v3')"));
    } else if (word[0] == '>') {
      op.out.push_back(line.Id(std::string_view(word).substr(1), 'v', "a result ('>v4')"));
    } else {
      ParseAttribute(line, word, op, seen);
    }
  }
  bool needs_units =
      op.kind == OpKind::kRun || op.kind == OpKind::kFetch || op.kind == OpKind::kKvMove;
  if (needs_units && !seen.units) {
    line.FailHere(fmt::format("{} needs a block and its units ('b17[0:4)')", ToString(op.kind)));
  }
  if ((op.kind == OpKind::kNorm || op.kind == OpKind::kAdd) && !seen.block) {
    line.FailHere(fmt::format("{} needs a block ('b17')", ToString(op.kind)));
  }
  return op;
}

// Collects lines into a plan.
class Parser {
 public:
  void Read(Line& line) {
    if (!header_) {
      ReadHeader(line);
    } else if (line.Peek() == "program") {
      ReadProgram(line);
    } else if (plan_.programs.empty()) {
      ReadPreamble(line);
    } else {
      if (++n_ops_ > kMaxEntries) line.FailHere("a plan holds at most 1,000,000 ops");
      plan_.programs.back().ops.push_back(ParseOp(line));
    }
  }
  Plan Finish(const std::string& name) {
    if (!header_) Fail(ErrorCode::kPlan, name + ": the text is empty; want 'tandem-plan 1'");
    if (!devices_) {
      Fail(ErrorCode::kPlan, name + ": no line 'devices N lanes N wire NAME' before its end");
    }
    return std::move(plan_);
  }

 private:
  void ReadHeader(Line& line) {
    if (line.Peek() != "tandem-plan") {
      line.FailHere(fmt::format("got '{}' where 'tandem-plan 1' was expected: is this a plan?",
                                line.Peek().substr(0, 40)));
    }
    line.Expect("tandem-plan");
    std::string version = line.Take("the format's version");
    if (version != "1") {
      line.FailHere(fmt::format("plan format '{}' (this tandem reads 1)", version));
    }
    line.End();
    header_ = true;
  }
  void ReadPreamble(Line& line) {
    std::string key = line.Take("a line's first word");
    if (key == "plugin") {
      plan_.plugin = line.Take("the plugin's name");
      plan_.plugin_version = line.Take("the plugin's version");
    } else if (key == "devices") {
      if (devices_) line.FailHere("a second line 'devices'");
      devices_ = true;
      plan_.n_devices = line.Number<uint32_t>(line.Take("a count"), "a count of devices");
      line.Expect("lanes");
      plan_.n_lanes = line.Number<uint32_t>(line.Take("a count"), "a count of lanes");
      line.Expect("wire");
      plan_.wire = line.Name(line.Take("a wire type"), "wire type",
                             {WireType::kF32, WireType::kBf16, WireType::kQ8});
    } else if (key == "knob") {
      Knob knob{line.Take("a knob's name"), ""};
      knob.value = line.Take("the knob's value");
      plan_.knobs.push_back(std::move(knob));
    } else if (key == "place") {
      if (plan_.places.size() == kMaxEntries) line.FailHere("more than 1,000,000 places");
      Place place;
      std::string word = line.Take("a block and its units ('b17[0:4)')");
      if (word.find('[') == std::string::npos) {
        line.FailHere(fmt::format("got '{}' where a block and its units was expected", word));
      }
      line.BlockAndUnits(word, place.block, place.units);
      place.device = line.Device(line.Take("a device"));
      plan_.places.push_back(place);
    } else if (key == "slot") {
      ReadSlot(line);
    } else {
      line.FailHere(
          fmt::format("unknown line '{}'{}", key,
                      DidYouMean(key, std::vector<std::string>{"plugin", "devices", "knob", "place",
                                                               "slot", "program"})));
    }
    line.End();
  }
  void ReadSlot(Line& line) {
    uint32_t id = line.Id(line.Take("a slot"), 's', "a slot ('s0')");
    if (id != plan_.slots.size() || id >= kMaxEntries) {
      line.FailHere(fmt::format("slot s{} where s{} was expected", id, plan_.slots.size()));
    }
    Slot slot;
    slot.device = line.Device(line.Take("the slot's device"));
    slot.bytes.value = line.Number<uint64_t>(line.Take("the slot's bytes"), "a count of bytes");
    plan_.slots.push_back(slot);
  }
  void ReadProgram(Line& line) {
    if (plan_.programs.size() >= 1000) line.FailHere("more than 1,000 programs");
    Program program;
    line.Expect("program");
    program.kind = line.Name(line.Take("the program's kind"), "program",
                             {ProgramKind::kPrefill, ProgramKind::kDecode,
                              ProgramKind::kReservedDraft, ProgramKind::kReservedVerify});
    line.Expect("lane");
    program.lane = line.Number<uint32_t>(line.Take("a lane"), "a lane's number");
    line.Expect("microbatches");
    program.microbatches = line.Number<uint32_t>(line.Take("a count"), "a count of microbatches");
    program.microbatch_kind =
        line.Name(line.Take("what a microbatch is"), "microbatch kind",
                  {MicrobatchKind::kNone, MicrobatchKind::kByChunk, MicrobatchKind::kBySequence});
    line.End();
    plan_.programs.push_back(std::move(program));
  }

  Plan plan_;
  bool header_ = false;
  bool devices_ = false;
  size_t n_ops_ = 0;
};

}  // namespace

Plan ParsePlan(std::string_view text, const std::string& name) {
  Parser parser;
  for (size_t number = 1; !text.empty(); ++number) {
    size_t end = std::min(text.find('\n'), text.size());
    Line line(text.substr(0, end), fmt::format("{}:{}", name, number));
    if (!line.empty()) parser.Read(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parser.Finish(name);
}

}  // namespace tandem
