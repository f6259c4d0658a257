#include "tools/tandem/models_check.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>

#include "engine/base/error.h"
#include "engine/base/sha256.h"
#include "engine/device/cpu/thread_pool.h"
#include "engine/model/inspect.h"
#include "engine/model/stored_model.h"
#include "engine/model/survey.h"
#include "engine/model/verify.h"
#include "engine/plan/memory_json.h"
#include "engine/plugin/planner.h"
#include "kernels/ops.h"
#include "tools/tandem/console.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"

namespace tandem {
namespace {

struct CheckFlags {
  std::string model;
  uint32_t context = 0;
  uint32_t step_tokens = 512;
  std::string tier = "auto";
  bool json = false;
};

// Files whose content is known: tools/setup.sh brings the first.
const std::map<std::string, std::string>& KnownHashes() {
  static const std::map<std::string, std::string> kKnown = {
      {"b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
       "SmolLM2-135M-Instruct.Q4_1.gguf"}};
  return kKnown;
}

// What this machine's kernels make of the weights, and what one device needs to run the whole model
// for one sequence: a row of the table that `plan show` prints and the engine is held to.
struct Needs {
  std::string kernels;  // "cpu/avx2"
  uint32_t context = 0;
  Bytes packed;
  MemoryRow memory;
};

Bytes PackedBytes(const Model& model, const Ops& ops) {
  Bytes packed;
  const auto add = [&](const TensorView& view) {
    if (view.rows == 0) return;
    // Vectors are used where they lie.
    packed += view.rows == 1 ? Bytes{view.bytes()}
                             : Bytes{ops.PackedBytes(view.type, {0, view.rows, 0, view.cols})};
  };
  add(model.token_embedding());
  add(model.output_norm());
  if (!model.config().tied_embedding) add(model.output());
  for (const LayerWeights& layer : model.layers()) {
    for (const auto slot : kLayerSlots) add(layer.*slot);
  }
  return packed;
}

MemoryRow MemoryOnOneDevice(const Model& model, uint32_t context, uint32_t step_tokens) {
  Rig rig = ThisMachineRig(1);
  rig.devices[0].memory = rig.host_memory = {};  // the need is told, fit or not
  const PlanProblem problem{
      .graph = &model.blocks(),
      .rig = &rig,
      .limits = {.max_step_tokens = step_tokens, .max_sequences = 1, .context = context}};
  return Planner(DefaultPlannerOptions()).MakePlan("single", problem, {}).verified.memory.rows[0];
}

Needs NeedsOf(const Model& model, const CheckFlags& flags) {
  ThreadPool pool({.threads = 1});
  const std::unique_ptr<Ops> ops = MakeCpuOps(pool, {.tier = flags.tier});
  const uint32_t context =
      flags.context != 0 ? flags.context : std::min(model.config().context, 4096u);
  return {.kernels = ops->name(),
          .context = context,
          .packed = PackedBytes(model, *ops),
          .memory = MemoryOnOneDevice(model, context, flags.step_tokens)};
}

nlohmann::json NeedsJson(const Model& model, const Needs& needs) {
  return {{"kernels", needs.kernels},
          {"context", needs.context},
          {"weight_bytes", model.weight_bytes().value},
          {"packed_bytes", needs.packed.value},
          {"memory", MemoryJson({.rows = {needs.memory}})[0]}};
}

std::string Scalar(const nlohmann::json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void PrintFacts(const char* title, const nlohmann::json& facts) {
  if (facts.empty()) return;
  PrintLine(fmt::format("{}:", title));
  for (const auto& [key, value] : facts.items()) {
    PrintLine(fmt::format("  {:<40} {}", key, Scalar(value)));
  }
}

void PrintSurvey(const Survey& survey, const nlohmann::json& described) {
  PrintLine(fmt::format("{}: {}, {}", survey.source, survey.format,
                        survey.architecture.empty() ? "no architecture" : survey.architecture));
  for (const auto& [path, bytes] : survey.files) {
    PrintLine(fmt::format("  {} {}", path, HumanBytes(Bytes{bytes})));
  }
  PrintFacts("what the file says", described["facts"]);
  PrintFacts("tokenizer", described["tokenizer"]);
  std::vector<std::vector<std::string>> rows{{"weights as", "tensors", "size", "read by tandem"}};
  for (const auto& entry : described["tensor_types"]) {
    rows.push_back({entry["type"], std::to_string(entry["count"].get<uint64_t>()),
                    HumanBytes(Bytes{entry["bytes"]}), entry["readable"] == true ? "yes" : "no"});
  }
  PrintOut(FormatTable(rows));
}

void PrintPlace(const Model& model, const Needs& needs, const nlohmann::json& blocks) {
  PrintLine("tandem runs it:");
  std::string units;
  for (const auto& block : blocks) {
    units += fmt::format("{}{} x {} of {} units", units.empty() ? "" : ", ", Scalar(block["count"]),
                         Scalar(block["kind"]), Scalar(block["units"]));
  }
  PrintLine(fmt::format("  blocks   {}", units));
  PrintLine(fmt::format("  kernels  {}: {} of weights repacked to {}", needs.kernels,
                        HumanBytes(model.weight_bytes()), HumanBytes(needs.packed)));
  const MemoryRow& memory = needs.memory;
  PrintLine(fmt::format(
      "  memory   {} on one device at a context of {} (KV {}, activations and workspace {}); the "
      "model was made for {}",
      HumanBytes(memory.total()), needs.context, HumanBytes(memory.kv),
      HumanBytes(memory.activations + memory.workspace), model.config().context));
}

// REQUIRES: a survey with damaged tensors, of which a cut file has very many.
std::string DamageLine(const Survey& survey) {
  const auto first = std::ranges::find_if(
      survey.tensors, [](const SurveyedTensor& tensor) { return !tensor.problem.empty(); });
  const std::string missing =
      survey.missing_bytes == 0
          ? ""
          : fmt::format(": the file ends {} bytes ({}) too early, download it again",
                        survey.missing_bytes, HumanBytes(Bytes{survey.missing_bytes}));
  return fmt::format("damaged  {} of {} tensors{}; the first: {}", survey.damaged(),
                     survey.tensors.size(), missing, first->problem);
}

int Inspect(const CheckFlags& flags) {
  const Survey survey = SurveyModel(ModelPath(flags.model));
  std::optional<Needs> needs;
  if (survey.model != nullptr) {
    if (flags.context > survey.model->config().context) {
      Fail(
          ErrorCode::kInvalidArgument,
          fmt::format("models inspect: -c {}: the model was made for {} tokens of context; give at "
                      "most that",
                      flags.context, survey.model->config().context));
    }
    needs = NeedsOf(*survey.model, flags);
  }
  nlohmann::json described = DescribeSurvey(survey);
  if (flags.json) {
    described["needs"] = needs ? NeedsJson(*survey.model, *needs) : nlohmann::json(nullptr);
    described["damaged"] = survey.damaged();
    described["missing_bytes"] = survey.missing_bytes;
    PrintJson(described);
    return survey.damaged() == 0 ? kExitOk : kExitModel;
  }
  PrintSurvey(survey, described);
  if (needs) {
    PrintPlace(*survey.model, *needs, described["model"]["blocks"]);
  } else {
    PrintLine("tandem does not run it:");
  }
  for (const std::string& why : survey.lacks) PrintLine("  lacks    " + why);
  if (survey.damaged() > 0) PrintLine("  " + DamageLine(survey));
  return survey.damaged() == 0 ? kExitOk : kExitModel;
}

nlohmann::json FindingJson(const TensorFinding& finding) {
  nlohmann::json json = {{"tensor", finding.tensor},
                         {"type", finding.type},
                         {"nans", finding.nans},
                         {"infinities", finding.infinities},
                         {"all_zero", finding.all_zero}};
  if (finding.bad()) {
    json["row"] = finding.row;
    json["column"] = finding.column;
  }
  return json;
}

std::string FindingLine(const TensorFinding& finding) {
  if (!finding.bad()) {
    return fmt::format("warning: {} ({}): every element is zero", finding.tensor, finding.type);
  }
  return fmt::format(
      "bad: {} ({}): {} NaN and {} infinite elements, the first in row {}, column {}",
      finding.tensor, finding.type, finding.nans, finding.infinities, finding.row, finding.column);
}

int Verify(const CheckFlags& flags) {
  const Survey survey = SurveyModel(ModelPath(flags.model));
  VerifyReport report;
  {
    ProgressBar bar;
    report = VerifyWeights(survey.tensors, [&](uint64_t done, uint64_t all) {
      bar.Update(done >> 20, std::max<uint64_t>(all >> 20, 1), "MiB of weights");
    });
  }
  std::vector<std::string> damaged;
  for (const SurveyedTensor& tensor : survey.tensors) {
    if (!tensor.problem.empty()) damaged.push_back(tensor.problem);
  }
  nlohmann::json files = nlohmann::json::array();
  for (const auto& [path, bytes] : survey.files) {
    const std::string hash = Sha256HexOfFile(path);
    const auto known = KnownHashes().find(hash);
    files.push_back({{"path", path},
                     {"bytes", bytes},
                     {"sha256", hash},
                     {"known_as", known == KnownHashes().end() ? nlohmann::json(nullptr)
                                                               : nlohmann::json(known->second)}});
  }
  const bool ok = report.ok() && damaged.empty() && !survey.tensors.empty();
  if (flags.json) {
    nlohmann::json findings = nlohmann::json::array();
    for (const TensorFinding& finding : report.findings) findings.push_back(FindingJson(finding));
    PrintJson({{"source", survey.source},
               {"ok", ok},
               {"tensors", survey.tensors.size()},
               {"checked", report.checked},
               {"checked_bytes", report.checked_bytes},
               {"skipped", report.skipped},
               {"damaged", damaged},
               {"missing_bytes", survey.missing_bytes},
               {"findings", findings},
               {"files", files}});
    return ok ? kExitOk : kExitModel;
  }
  for (const TensorFinding& finding : report.findings) PrintLine(FindingLine(finding));
  if (!damaged.empty()) PrintLine("bad: " + DamageLine(survey));
  if (!report.skipped.empty()) {
    PrintLine(
        fmt::format("not checked: {} tensors of types that tandem does not read, {} the first",
                    report.skipped.size(), report.skipped[0]));
  }
  for (const auto& file : files) {
    PrintLine(fmt::format(
        "{}  {}{}", Scalar(file["sha256"]), Scalar(file["path"]),
        file["known_as"].is_null() ? "" : fmt::format(" (is {})", Scalar(file["known_as"]))));
  }
  PrintLine(fmt::format("{}: {} of {} tensors checked, {}", ok ? "ok" : "bad", report.checked,
                        survey.tensors.size(), HumanBytes(Bytes{report.checked_bytes})));
  return ok ? kExitOk : kExitModel;
}

}  // namespace

void AddModelCheckCommands(CLI::App& models, Action& action) {
  auto flags = std::make_shared<CheckFlags>();
  CLI::App* inspect = models.add_subcommand(
      "inspect",
      "What a model's files hold, what tandem does with it, and what it lacks. Exit code 3 "
      "when they are damaged");
  inspect->footer(
      "Examples:\n"
      "  tandem models inspect model.gguf\n"
      "  tandem models inspect folder-with-config.json -c 8192 --json");
  inspect->add_option("-c,--ctx-size", flags->context, "Context that memory is counted for");
  inspect->add_option("--cpu-tier", flags->tier, "CPU kernels: auto, or one by name");
  inspect->callback([flags, &action] { action = [flags] { return Inspect(*flags); }; });
  CLI::App* verify = models.add_subcommand(
      "verify", "Whether every weight is a number; checksums. Exit code 3 when not");
  verify->footer("Example:\n  tandem models verify model-00001-of-00003.gguf");
  verify->callback([flags, &action] { action = [flags] { return Verify(*flags); }; });
  for (CLI::App* sub : {inspect, verify}) {
    sub->add_option("model", flags->model, "A GGUF file, a safetensors folder, or a name")
        ->required();
    sub->add_flag("--json", flags->json, "JSON on stdout");
  }
}

}  // namespace tandem
