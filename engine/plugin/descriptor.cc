// Reading a plugin's descriptor and its knobs.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "engine/base/error.h"
#include "engine/base/suggest.h"
#include "engine/plugin/abi.h"
#include "engine/plugin/host.h"

namespace tandem {
namespace {

constexpr uint32_t kMaxKnobs = 64;
constexpr uint32_t kMaxGrid = 64;
constexpr size_t kLongestName = 64;
constexpr size_t kLongestText = 1000;

[[noreturn]] void FailPlugin(const std::string& path, const std::string& why) {
  Fail(ErrorCode::kPlugin, fmt::format("plugin {}: {}", path, why));
}

bool IsName(const std::string& text) {
  if (text.empty() || text.size() >= kLongestName || text[0] < 'a' || text[0] > 'z') return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

std::string NameOf(const char* text, const char* what, const std::string& path) {
  std::string name = CleanText(text, kLongestName);
  if (!IsName(name)) {
    FailPlugin(path, fmt::format("{} is '{}' (want a-z, 0-9 and _, starting with a letter, "
                                 "shorter than {})",
                                 what, name, kLongestName));
  }
  return name;
}

const char* TypeName(uint32_t type) {
  switch (type) {
    case TANDEM_KNOB_INT:
      return "int";
    case TANDEM_KNOB_DOUBLE:
      return "double";
    case TANDEM_KNOB_BOOL:
      return "bool";
    case TANDEM_KNOB_STRING:
      return "string";
    default:
      return nullptr;
  }
}

// The value spelled the one way of its type; nothing when it is not of that type.
std::optional<std::string> Canonical(const std::string& type, const std::string& value) {
  const char* first = value.data();
  const char* last = first + value.size();
  if (type == "int") {
    int64_t number = 0;
    const auto [end, error] = std::from_chars(first, last, number);
    if (error != std::errc() || end != last) return std::nullopt;
    return std::to_string(number);
  }
  if (type == "double") {
    double number = 0;
    const auto [end, error] = std::from_chars(first, last, number);
    if (error != std::errc() || end != last || !std::isfinite(number)) return std::nullopt;
    return fmt::format("{}", number);
  }
  if (type == "bool") {
    if (value == "true" || value == "1" || value == "on" || value == "yes") return "true";
    if (value == "false" || value == "0" || value == "off" || value == "no") return "false";
    return std::nullopt;
  }
  return value;
}

KnobInfo ReadKnob(const tandem_knob* from, const std::string& path) {
  std::string why;
  const std::optional<tandem_knob> given = ReadGrown(from, kKnobSize10, &why);
  if (!given) FailPlugin(path, "tandem_knob " + why);
  KnobInfo knob;
  knob.name = NameOf(given->name, "a knob's name", path);
  const char* type = TypeName(given->type);
  if (type == nullptr) {
    FailPlugin(path, fmt::format("knob {}: type {} (want 1 to 4)", knob.name, given->type));
  }
  knob.type = type;
  knob.help = CleanText(given->help, kLongestText);
  const auto value = [&](const char* text) {
    const std::string clean = CleanText(text, kLongestText);
    const std::optional<std::string> canonical = Canonical(knob.type, clean);
    if (!canonical) {
      FailPlugin(path, fmt::format("knob {}: '{}' is no {}", knob.name, clean, knob.type));
    }
    return *canonical;
  };
  knob.default_value = value(given->default_value);
  if (given->n_grid > kMaxGrid || (given->n_grid > 0 && given->grid == nullptr)) {
    FailPlugin(path, fmt::format("knob {}: a grid of {} values (want at most {})", knob.name,
                                 given->n_grid, kMaxGrid));
  }
  for (uint32_t i = 0; i < given->n_grid; ++i) knob.grid.push_back(value(given->grid[i]));
  if (knob.grid.empty()) knob.grid.push_back(knob.default_value);
  return knob;
}

}  // namespace

PluginInfo ReadDescriptor(const tandem_plugin* plugin, const std::string& path) {
  if (plugin == nullptr) FailPlugin(path, "tandem_plugin_entry_v1() returned null");
  std::string why;
  const std::optional<tandem_plugin> given = ReadGrown(plugin, kPluginSize10, &why);
  if (!given) FailPlugin(path, "its descriptor " + why);
  if (given->abi_major != TANDEM_ABI_MAJOR) {
    FailPlugin(path, fmt::format("made for plugin ABI {} (this tandem speaks {}); rebuild it "
                                 "against this tandem's tandem/plugin.h",
                                 given->abi_major, TANDEM_ABI_MAJOR));
  }
  if (given->abi_minor_needed > TANDEM_ABI_MINOR) {
    FailPlugin(path, fmt::format("needs plugin ABI {}.{} (this tandem speaks {}.{}); use a newer "
                                 "tandem",
                                 given->abi_major, given->abi_minor_needed, TANDEM_ABI_MAJOR,
                                 TANDEM_ABI_MINOR));
  }
  if (given->plan == nullptr) FailPlugin(path, "its descriptor has no plan()");
  if (given->n_knobs > kMaxKnobs || (given->n_knobs > 0 && given->knobs == nullptr)) {
    FailPlugin(path, fmt::format("{} knobs (want at most {})", given->n_knobs, kMaxKnobs));
  }
  PluginInfo info;
  info.name = NameOf(given->name, "its name", path);
  info.version = CleanText(given->version, kLongestName);
  info.summary = CleanText(given->summary, kLongestText);
  info.path = path;
  info.abi_minor_built = given->abi_minor_built;
  info.abi_minor_needed = given->abi_minor_needed;
  for (uint32_t i = 0; i < given->n_knobs; ++i) {
    info.knobs.push_back(ReadKnob(given->knobs[i], path));
  }
  std::sort(info.knobs.begin(), info.knobs.end(),
            [](const KnobInfo& a, const KnobInfo& b) { return a.name < b.name; });
  for (size_t i = 1; i < info.knobs.size(); ++i) {
    if (info.knobs[i].name == info.knobs[i - 1].name) {
      FailPlugin(path, fmt::format("declares knob {} twice", info.knobs[i].name));
    }
  }
  return info;
}

std::vector<Knob> ResolveKnobs(const PluginInfo& plugin, const std::vector<Knob>& given) {
  std::vector<Knob> knobs;
  std::vector<std::string> names;
  for (const KnobInfo& knob : plugin.knobs) {
    knobs.push_back({knob.name, knob.default_value});
    names.push_back(knob.name);
  }
  std::vector<bool> seen(knobs.size(), false);
  for (const Knob& knob : given) {
    const size_t i = std::find(names.begin(), names.end(), knob.key) - names.begin();
    if (i == names.size()) {
      Fail(ErrorCode::kInvalidArgument,
           names.empty()
               ? fmt::format("plugin {}: unknown knob '{}' (it has none)", plugin.name, knob.key)
               : fmt::format("plugin {}: unknown knob '{}'{}; it has {}", plugin.name, knob.key,
                             DidYouMean(knob.key, names), fmt::join(names, ", ")));
    }
    if (seen[i]) {
      Fail(ErrorCode::kInvalidArgument,
           fmt::format("plugin {}: knob {} was given twice", plugin.name, knob.key));
    }
    seen[i] = true;
    const std::optional<std::string> value = Canonical(plugin.knobs[i].type, knob.value);
    if (!value) {
      Fail(ErrorCode::kInvalidArgument,
           fmt::format("plugin {}: knob {}: '{}' is no {} ({})", plugin.name, knob.key, knob.value,
                       plugin.knobs[i].type, plugin.knobs[i].help));
    }
    knobs[i].value = *value;
  }
  return knobs;
}

}  // namespace tandem
