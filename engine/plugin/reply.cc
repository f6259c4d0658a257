// The lines of the planning helper's reply.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/plan/text.h"
#include "engine/plugin/abi.h"
#include "engine/plugin/protocol.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

std::string Line(const Json& j) {
  return j.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json InfoJson(const PluginInfo& info) {
  Json knobs = Json::array();
  for (const KnobInfo& k : info.knobs) {
    knobs.push_back({{"name", k.name},
                     {"type", k.type},
                     {"default", k.default_value},
                     {"grid", k.grid},
                     {"help", k.help}});
  }
  return {{"name", info.name},
          {"version", info.version},
          {"summary", info.summary},
          {"built", info.abi_minor_built},
          {"needed", info.abi_minor_needed},
          {"knobs", knobs}};
}

PluginInfo InfoFrom(const Json& j) {
  PluginInfo info;
  info.name = j.at("name");
  info.version = j.at("version");
  info.summary = j.at("summary");
  info.abi_minor_built = j.at("built");
  info.abi_minor_needed = j.at("needed");
  for (const Json& from : j.at("knobs")) {
    KnobInfo knob;
    knob.name = from.at("name");
    knob.type = from.at("type");
    knob.default_value = from.at("default");
    knob.grid = from.at("grid").get<std::vector<std::string>>();
    knob.help = from.at("help");
    info.knobs.push_back(knob);
  }
  return info;
}

const char* LevelName(int level) {
  switch (level) {
    case TANDEM_DIAG_WARNING:
      return "warning: ";
    case TANDEM_DIAG_ERROR:
      return "error: ";
    default:
      return "";
  }
}

// Codes a plugin's run can end with.
constexpr ErrorCode kCodes[] = {ErrorCode::kPlugin, ErrorCode::kInvalidArgument, ErrorCode::kPlan,
                                ErrorCode::kUnsupported};

void ReadLine(const Json& j, PlanReply* reply) {
  if (j.contains("stage")) {
    reply->stage = j.at("stage");
  } else if (j.contains("diag")) {
    const std::string text = j.at("diag");
    reply->diagnostics.push_back(LevelName(j.at("level")) + text);
  } else if (j.contains("info")) {
    reply->info = InfoFrom(j.at("info"));
    reply->has_info = true;
  } else if (j.contains("plan")) {
    reply->plan_text = j.at("plan");
  } else if (j.contains("error")) {
    reply->error = j.at("error");
    reply->has_error = true;
    const std::string code = j.at("code");
    for (ErrorCode known : kCodes) {
      if (code == ToString(known)) reply->error_code = known;
    }
  } else if (j.contains("done")) {
    reply->done = true;
  } else {
    reply->garbage = "a line of an unknown kind";
  }
}

}  // namespace

std::string StageLine(const std::string& stage) { return Line({{"stage", stage}}); }
std::string DiagLine(int32_t level, const std::string& text) {
  return Line({{"diag", text}, {"level", level}});
}
std::string InfoLine(const PluginInfo& info) { return Line({{"info", InfoJson(info)}}); }
std::string PlanLine(const Plan& plan) {
  return Line({{"plan", FormatPlan(plan, PlanText::kWithCalls)}});
}
std::string ErrorLine(const Error& error) {
  return Line({{"error", error.what()}, {"code", ToString(error.code())}});
}
std::string DoneLine() { return Line({{"done", true}}); }

PlanReply ParseReply(std::string_view text) {
  PlanReply reply;
  while (!text.empty() && reply.garbage.empty() && !reply.done) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) break;
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    try {
      ReadLine(Json::parse(line), &reply);
    } catch (const Json::exception& error) {
      reply.garbage = CleanText(error.what(), 200);
    }
  }
  return reply;
}

}  // namespace tandem
