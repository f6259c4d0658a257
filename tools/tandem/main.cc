// tandem: serves one transformer on two devices, split by a plugin, and shows what the link costs.
// Parses the command line, runs one command, and turns Errors into documented exit codes.
#include <fmt/core.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/suggest.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/exit_code.h"

namespace tandem {
namespace {

constexpr std::string_view kExamples = R"(Examples:
  tandem generate -p "The link between two cards" -n 32
  tandem serve --plugin tensor_split --rig 2x3090-nvlink --port 8080
  tandem plan show --plugin layer_split --devices 2
  tandem run scenarios/quickstart.yaml && tandem report results/*/
  tandem predict -m llama-3.1-8b --rig 2x3090-nvlink --plugin tensor_split

Exit codes: 0 ok, 1 failure, 2 usage, 3 model, 4 plan refused or does not fit, 5 plugin,
6 device or link, 7 port in use, 8 run incomplete (resume it), 130 interrupted.)";

// What people want of --help is an example: it stands before usage and options.
class ExamplesFirst : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* app, std::string name) const override {
    const std::string examples = app->get_footer();
    return (examples.empty() ? "" : "\n" + examples + "\n\n") +
           CLI::Formatter::make_usage(app, std::move(name));
  }
  std::string make_footer(const CLI::App*) const override { return ""; }
};

// llama.cpp spells some flags with one dash and several letters; the parser wants two dashes.
std::string NormalizeFlag(const std::string& arg) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kLong{{
      {"-np", "--parallel"},
      {"-npl", "--npl"},
      {"-ts", "--tensor-split"},
      {"-sm", "--split-mode"},
      {"-ub", "--ubatch-size"},
      {"-dev", "--devices"},
      {"-cb", "--cont-batching"},
      {"-to", "--timeout"},
  }};
  std::string_view name = arg;
  name = name.substr(0, name.find('='));
  for (const auto& [from, to] : kLong) {
    if (name == from) return std::string(to) + arg.substr(name.size());
  }
  return arg;
}

// Every name the parsed command would have understood, for near-miss suggestions.
std::vector<std::string> KnownWords(const CLI::App& app) {
  std::vector<std::string> words;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
  }
  for (const CLI::App* sub : app.get_subcommands(nullptr)) words.push_back(sub->get_name());
  return words;
}

// "tandem models inspect".
std::string FullName(const CLI::App& app) {
  const CLI::App* parent = app.get_parent();
  return parent == nullptr ? "tandem" : FullName(*parent) + " " + app.get_name();
}

// The command that was understood, and how many words named it.
const CLI::App& DeepestParsed(const CLI::App& app, size_t* words) {
  const CLI::App* deepest = &app;
  for (auto chosen = app.get_subcommands(); !chosen.empty(); chosen = deepest->get_subcommands()) {
    deepest = chosen.back();
    ++*words;
  }
  return *deepest;
}

// What an option's value is, by the parser's name of its type.
std::string Wanted(const CLI::App& app, const std::string& option) {
  const CLI::Option* found = app.get_option_no_throw(option);
  const std::string type = found == nullptr ? "" : found->get_type_name();
  if (type.starts_with("UINT")) return "a whole number, not negative";
  if (type.starts_with("INT")) return "a whole number";
  return "a number";
}

// llama.cpp's flags that people bring along and that have no counterpart here; "" for others.
std::string ForeignFlag(const std::vector<std::string>& args) {
  for (const std::string& arg : args) {
    const std::string word = arg.substr(0, arg.find('='));
    if (word == "-ngl" || word == "--n-gpu-layers" || word == "--gpu-layers") {
      return word +
             " is no flag here: which device holds what is the plan's; see --plugin, --devices and "
             "--tensor-split";
    }
  }
  return "";
}

int UsageError(const CLI::App& root, const CLI::ParseError& error,
               const std::vector<std::string>& args) {
  size_t named = 0;
  const CLI::App& app = DeepestParsed(root, &named);
  const bool wants_command = !app.get_subcommands(nullptr).empty();
  const bool unknown_command =
      wants_command && named < args.size() && !args[named].starts_with("-");
  std::vector<std::string> words = KnownWords(app);
  std::string hint;
  for (const std::string& arg : args) {
    std::string word = arg.substr(0, arg.find('='));
    bool known = std::find(words.begin(), words.end(), word) != words.end();
    // The parser names unknown flags; where it misses a command, the next word is the wrong one.
    bool blamed = std::string(error.what()).find(word) != std::string::npos ||
                  (unknown_command && word == args[named]);
    if (!known && blamed && hint.empty()) hint = DidYouMean(word, words);
  }
  std::string what = error.what();
  // The parser's own words, "Could not convert: --n-prompt = -1", do not say what was wanted.
  const std::string convert = "Could not convert: ";
  if (const size_t equals = what.find(" = "); what.starts_with(convert) && equals != what.npos) {
    const std::string option = what.substr(convert.size(), equals - convert.size());
    what =
        fmt::format("{}: got '{}', want {}", option, what.substr(equals + 3), Wanted(app, option));
  }
  if (const std::string foreign = ForeignFlag(args); !foreign.empty()) {
    what = foreign;
    hint.clear();
  }
  if (unknown_command) what = fmt::format("no command '{}'", args[named]);
  fmt::print(stderr, "error: {}{}\nSee: {} --help\n", what, hint, FullName(app));
  return kExitUsage;
}

int Main(int argc, char** argv) {
  // A reader that closes its end (head, a client that leaves) must not kill us mid-write.
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App root{"One transformer on two GPUs, split by loadable plugins; what the link costs."};
  root.name("tandem");
  root.formatter(std::make_shared<ExamplesFirst>());  // commands inherit it
  root.footer(std::string(kExamples));
  root.set_version_flag("--version", TandemVersion());
  root.require_subcommand(1);
  Action action;
  AddServeCommand(root, action);
  AddRunCommand(root, action);
  AddReportCommand(root, action);
  AddRigCommand(root, action);
  AddPlanCommand(root, action);
  AddPredictCommand(root, action);
  AddBenchCommand(root, action);
  AddPerplexityCommand(root, action);
  AddGenerateCommand(root, action);
  AddModelsCommand(root, action);
  AddPluginsCommand(root, action);
  AddTokenizeCommand(root, action);
  AddRenderCommand(root, action);

  std::vector<std::string> args;
  for (int i = 1; i < argc; ++i) args.push_back(NormalizeFlag(argv[i]));
  try {
    // CLI11 takes the vector in reverse.
    root.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::Success& success) {  // --help, --version
    return root.exit(success) == 0 ? kExitOk : kExitFailure;
  } catch (const CLI::ParseError& error) {
    return UsageError(root, error, args);
  }
  return action ? action() : kExitUsage;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  // CUDA's queues of one GPU, as many as there are, before its driver starts: kernels that wait for
  // each other on two devices that are one GPU must not stand in one queue.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", /*overwrite=*/0);
  try {
    return tandem::Main(argc, argv);
  } catch (const tandem::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return tandem::ExitCodeFor(error.code());
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "error: out of memory on this machine\n");
    return tandem::kExitFailure;
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return tandem::kExitFailure;
  }
}
