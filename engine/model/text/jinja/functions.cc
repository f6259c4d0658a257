#include "engine/model/text/jinja/functions.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <string>
#include <tuple>
#include <utility>

#include "engine/base/error.h"
#include "engine/model/text/jinja/format.h"
#include "engine/model/text/jinja/operators.h"

namespace tandem::jinja {
namespace {

constexpr std::array<std::string_view, 4> kFunctions = {"range", "namespace", "raise_exception",
                                                        "strftime_now"};

Value FormatTime(Runtime& runtime, const std::string& format) {
  // Those that Python and C agree on.
  constexpr std::string_view kConversions = "aAbBdHIjmMpSUwWyYF%";
  constexpr size_t kMaxFormat = 200;
  if (format.size() > kMaxFormat) runtime.FailUnsupported("strftime_now() of a long format");
  if (format.find('\0') != std::string::npos) runtime.Fail("a time's format with a NUL");
  for (size_t at = format.find('%'); at != std::string::npos; at = format.find('%', at + 2)) {
    const char conversion = at + 1 < format.size() ? format[at + 1] : '\0';
    if (conversion == '\0' || kConversions.find(conversion) == std::string_view::npos) {
      runtime.FailUnsupported(fmt::format("strftime_now() with '{}'", format));
    }
  }
  char text[4096];  // no conversion is longer than 20
  const size_t size = std::strftime(text, sizeof text, format.c_str(), &*runtime.now);
  return runtime.NewString(std::string(text, size));
}

Value MakeNamespace(Runtime& runtime, Arguments arguments) {
  auto space = std::make_shared<NamespaceData>();
  if (arguments.positional.size() > 1) runtime.Fail("'namespace()' takes one dict at most");
  for (const Value& value : arguments.positional) {
    if (value.dict() == nullptr) runtime.FailUnsupported("namespace() of anything but a dict");
    for (const auto& [key, held] : value.dict()->entries) {
      if (!key.IsString()) runtime.Fail("a namespace's attributes are named by strings");
      SetAttribute(runtime, *space, *key.string(), held);
    }
  }
  for (auto& [key, held] : arguments.named) SetAttribute(runtime, *space, key, std::move(held));
  return Value(std::move(space));
}

Value MakeRange(Runtime& runtime, const std::vector<Value>& bounds) {
  constexpr uint64_t kMaxRange = 100'000;  // as Jinja's sandbox
  int64_t parts[3] = {0, 0, 1};            // start, stop, step
  if (bounds.empty() || bounds.size() > 3) runtime.Fail("'range()' takes 1 to 3 integers");
  for (size_t i = 0; i < bounds.size(); ++i) {
    const auto integer = AsInteger(bounds[i]);
    if (!integer) runtime.Fail("'range()' takes integers");
    parts[bounds.size() == 1 ? 1 : i] = *integer;
  }
  const auto [start, stop, step] = std::tuple(parts[0], parts[1], parts[2]);
  if (step == 0) runtime.Fail("'range()' with a step of zero");
  std::vector<Value> items;
  for (int64_t at = start; step > 0 ? at < stop : at > stop;) {
    if (items.size() >= kMaxRange) {
      runtime.Fail(fmt::format("'range()' with over {} elements", kMaxRange));
    }
    items.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return runtime.NewList(std::move(items), ListKind::kRange);
}

}  // namespace

bool IsFunction(std::string_view name) {
  return std::find(kFunctions.begin(), kFunctions.end(), name) != kFunctions.end();
}

Value CallFunction(Runtime& runtime, std::string_view name, Arguments arguments) {
  if (name == "namespace") return MakeNamespace(runtime, std::move(arguments));
  if (name == "range" && arguments.named.empty()) return MakeRange(runtime, arguments.positional);
  if (name == "raise_exception" && arguments.positional.size() == 1) {
    tandem::Fail(ErrorCode::kInvalidArgument,
                 fmt::format("chat template: {}", ToText(runtime, arguments.positional[0])));
  }
  if (name == "strftime_now" && !runtime.now) {
    runtime.FailUnsupported("strftime_now() where no time is given");
  }
  if (name == "strftime_now" && arguments.positional.size() == 1 &&
      arguments.positional[0].IsString()) {
    return FormatTime(runtime, *arguments.positional[0].string());
  }
  runtime.Fail(fmt::format("'{}()' cannot take these arguments", name));
}

}  // namespace tandem::jinja
