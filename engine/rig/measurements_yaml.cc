#include "engine/rig/measurements_yaml.h"

#include <fmt/format.h>

#include <array>
#include <optional>

namespace tandem {
namespace {

constexpr size_t kMostRows = 4096;  // of a list
constexpr std::array kVerdicts{CounterVerdict::kMeasured, CounterVerdict::kNotAvailable,
                               CounterVerdict::kMismatch};

std::string SpreadYaml(const Spread& spread) {
  return fmt::format("{}, {}, {}, {}", spread.median, spread.low, spread.high, spread.runs);
}

// Appends ", key: text" where there is text.
std::string Optional(const char* key, const std::string& text) {
  return text.empty() ? "" : fmt::format(", {}: {}", key, QuotedYaml(text));
}

template <typename Row, typename Write>
std::string ListYaml(const char* key, const std::vector<Row>& rows, const Write& write) {
  if (rows.empty()) return "";
  std::string out = fmt::format("  {}:\n", key);
  for (const Row& row : rows) out += "    - " + write(row) + "\n";
  return out;
}

std::string PathYaml(const MeasuredPath& path) {
  std::string out =
      fmt::format("path: {}\n      what: {}", ToString(path.path), QuotedYaml(path.what));
  if (!path.refused.empty()) return out + "\n      refused: " + QuotedYaml(path.refused);
  out += "\n      points:";
  for (const MeasuredPoint& point : path.points) {
    out += fmt::format("\n        - [{}, {}]", point.bytes.value, SpreadYaml(point.micros));
  }
  return out;
}

std::vector<YamlValue> Rows(YamlMap& map, const std::string& key) {
  const std::optional<YamlValue> list = map.Get(key);
  if (!list) return {};
  std::vector<YamlValue> rows = list->AsSequence();
  if (rows.size() > kMostRows) {
    list->FailHere(fmt::format("got {} entries (want at most {})", rows.size(), kMostRows));
  }
  return rows;
}

uint64_t Count(const YamlValue& value, int64_t most) {
  const int64_t number = value.AsInt();
  if (number < 0 || number > most) {
    value.FailHere(fmt::format("got {} (want 0 to {})", number, most));
  }
  return static_cast<uint64_t>(number);
}

// The four numbers of a spread, from `begin` on.
Spread ReadSpread(const YamlValue& row, const std::vector<YamlValue>& values, size_t begin) {
  if (values.size() != begin + 4) {
    row.FailHere(fmt::format("got {} numbers (want {}median, low, high, runs)", values.size(),
                             begin == 1 ? "bytes, " : ""));
  }
  return Spread{.median = values[begin].AsDouble(),
                .low = values[begin + 1].AsDouble(),
                .high = values[begin + 2].AsDouble(),
                .runs = static_cast<uint32_t>(Count(values[begin + 3], 1 << 30))};
}

PathKind ReadPath(YamlMap& map) {
  const YamlValue value = map.Require("path");
  const std::optional<PathKind> path = PathKindFromName(value.AsString());
  if (!path || *path == PathKind::kAuto) {
    value.FailHere(
        fmt::format("got '{}' (want local, copy, p2p, host_staged or nccl)", value.AsString()));
  }
  return *path;
}

MachineFact ReadFact(const YamlValue& row) {
  YamlMap map = row.AsMap();
  MachineFact fact{.of = map.String("of"),
                   .what = map.String("what"),
                   .value = map.String("value", ""),
                   .absent = map.String("absent", "")};
  map.Finish();
  return fact;
}

MeasuredFigure ReadFigure(const YamlValue& row) {
  YamlMap map = row.AsMap();
  MeasuredFigure figure{.device = static_cast<int32_t>(Count(map.Require("device"), 255)),
                        .what = map.String("what"),
                        .unit = map.String("unit"),
                        .value = {},
                        .absent = map.String("absent", "")};
  if (figure.absent.empty()) {
    const YamlValue value = map.Require("value");
    figure.value = ReadSpread(value, value.AsSequence(), 0);
  }
  map.Finish();
  return figure;
}

MeasuredPath ReadMeasuredPath(const YamlValue& row) {
  YamlMap map = row.AsMap();
  MeasuredPath path{.path = ReadPath(map),
                    .what = map.String("what"),
                    .points = {},
                    .refused = map.String("refused", "")};
  for (const YamlValue& point : Rows(map, "points")) {
    const std::vector<YamlValue> values = point.AsSequence();
    const Spread spread = ReadSpread(point, values, 1);
    path.points.push_back(MeasuredPoint{Bytes{Count(values[0], int64_t{1} << 40)}, spread});
  }
  map.Finish();
  return path;
}

CounterCheck ReadCheck(const YamlValue& row) {
  YamlMap map = row.AsMap();
  CounterCheck check{.path = ReadPath(map),
                     .what = map.String("what"),
                     .counter = map.String("counter"),
                     .booked = Bytes{Count(map.Require("booked"), int64_t{1} << 60)},
                     .counted = Bytes{Count(map.Require("counted"), int64_t{1} << 60)},
                     .tolerance = map.Double("tolerance"),
                     .verdict = CounterVerdict::kNotAvailable,
                     .why = map.String("why", "")};
  const YamlValue verdict = map.Require("verdict");
  bool known = false;
  for (CounterVerdict candidate : kVerdicts) {
    if (verdict.AsString() != ToString(candidate)) continue;
    check.verdict = candidate;
    known = true;
  }
  if (!known) {
    verdict.FailHere(
        fmt::format("got '{}' (want measured, not_available or mismatch)", verdict.AsString()));
  }
  map.Finish();
  return check;
}

}  // namespace

const char* ToString(CounterVerdict verdict) {
  switch (verdict) {
    case CounterVerdict::kMeasured:
      return "measured";
    case CounterVerdict::kNotAvailable:
      return "not_available";
    case CounterVerdict::kMismatch:
      return "mismatch";
  }
  return "not_available";
}

std::string QuotedYaml(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + "\"";
}

std::string FormatMeasurements(const RigMeasurements& measured) {
  std::string out =
      fmt::format("  date: {}\n  tandem: {}\n  devices: {}\n", QuotedYaml(measured.date),
                  QuotedYaml(measured.version), QuotedYaml(measured.devices));
  out += ListYaml("facts", measured.facts, [](const MachineFact& fact) {
    return fmt::format("{{of: {}, what: {}{}{}}}", QuotedYaml(fact.of), QuotedYaml(fact.what),
                       Optional("value", fact.value), Optional("absent", fact.absent));
  });
  out += ListYaml("figures", measured.figures, [](const MeasuredFigure& figure) {
    return fmt::format("{{device: {}, what: {}, unit: {}, {}}}", figure.device,
                       QuotedYaml(figure.what), QuotedYaml(figure.unit),
                       figure.absent.empty() ? fmt::format("value: [{}]", SpreadYaml(figure.value))
                                             : "absent: " + QuotedYaml(figure.absent));
  });
  out += ListYaml("paths", measured.paths, PathYaml);
  return out + ListYaml("counters", measured.counters, [](const CounterCheck& check) {
           return fmt::format(
               "{{path: {}, what: {}, counter: {}, booked: {}, counted: {}, tolerance: {}, "
               "verdict: {}{}}}",
               ToString(check.path), QuotedYaml(check.what), QuotedYaml(check.counter),
               check.booked.value, check.counted.value, check.tolerance, ToString(check.verdict),
               Optional("why", check.why));
         });
}

RigMeasurements ReadMeasurements(const YamlValue& value) {
  YamlMap map = value.AsMap();
  RigMeasurements measured{.date = map.String("date"),
                           .version = map.String("tandem"),
                           .devices = map.String("devices"),
                           .facts = {},
                           .figures = {},
                           .paths = {},
                           .counters = {}};
  for (const YamlValue& row : Rows(map, "facts")) measured.facts.push_back(ReadFact(row));
  for (const YamlValue& row : Rows(map, "figures")) measured.figures.push_back(ReadFigure(row));
  for (const YamlValue& row : Rows(map, "paths")) measured.paths.push_back(ReadMeasuredPath(row));
  for (const YamlValue& row : Rows(map, "counters")) measured.counters.push_back(ReadCheck(row));
  map.Finish();
  return measured;
}

}  // namespace tandem
