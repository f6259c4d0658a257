// tandem models list | path | show | synthesize; models_check.cc has inspect and verify.
#include <fmt/core.h>

#include <filesystem>
#include <memory>

#include "engine/base/error.h"
#include "engine/model/gguf_writer.h"
#include "engine/model/inspect.h"
#include "engine/model/synthetic.h"
#include "engine/rig/rig.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"
#include "tools/tandem/models_check.h"

namespace tandem {
namespace {

struct ModelsFlags {
  std::string name;
  std::string spec;
  std::string out;
  uint32_t split = 1;
  bool json = false;
};

int List(const ModelsFlags& flags) {
  Catalogue catalogue(CatalogueRoots());
  nlohmann::json array = nlohmann::json::array();
  std::vector<std::vector<std::string>> rows{{"model", "kind", "where"}};
  for (const auto& [name, path] : InstalledModels()) {
    array.push_back({{"name", name}, {"kind", "file"}, {"path", path}});
    rows.push_back({name, "file", path});
  }
  for (const std::string& name : catalogue.ModelNames()) {
    array.push_back({{"name", name}, {"kind", "shape"}, {"spec", catalogue.LoadModelShape(name)}});
    rows.push_back({name, "shape", catalogue.LoadModelShape(name)});
  }
  if (flags.json) {
    PrintJson(array);
  } else {
    PrintOut(FormatTable(rows));
  }
  return kExitOk;
}

int Path(const ModelsFlags& flags) {
  std::string path = std::filesystem::absolute(ModelPath(flags.name)).string();
  if (!std::filesystem::exists(path)) Fail(ErrorCode::kModelFile, "models path: no file " + path);
  if (flags.json) {
    PrintJson({{"name", flags.name}, {"path", path}});
  } else {
    PrintLine(path);
  }
  return kExitOk;
}

int Show(const ModelsFlags& flags) {
  std::shared_ptr<const Model> model = OpenModel(flags.name, /*shape_only=*/true);
  if (flags.json) {
    PrintJson(Describe(*model));
  } else {
    PrintOut(DescribeModel(*model));
  }
  return kExitOk;
}

int Synthesize(const ModelsFlags& flags) {
  std::string spec = flags.spec.starts_with("synthetic:") ? flags.spec.substr(10) : flags.spec;
  SyntheticSpec parsed = ParseSyntheticSpec(spec);
  std::vector<std::string> paths{flags.out};
  if (flags.split > 1) {
    paths = WriteGgufParts(*MakeSyntheticModel(parsed), flags.out, flags.split);
  } else {
    WriteSyntheticGguf(parsed, flags.out);
  }
  uint64_t size = 0;
  for (const std::string& path : paths) size += std::filesystem::file_size(path);
  if (flags.json) {
    PrintJson({{"path", paths[0]},
               {"paths", paths},
               {"bytes", size},
               {"spec", FormatSyntheticSpec(parsed)}});
  } else {
    PrintLine(fmt::format("{}{}: {} ({})", paths[0],
                          paths.size() > 1 ? fmt::format(" and {} more", paths.size() - 1) : "",
                          HumanBytes(Bytes{size}), FormatSyntheticSpec(parsed)));
  }
  return kExitOk;
}

}  // namespace

void AddModelsCommand(CLI::App& root, Action& action) {
  auto flags = std::make_shared<ModelsFlags>();
  CLI::App* app =
      root.add_subcommand("models", "Models found by name, what is in them, synthetic ones");
  app->footer(
      "Examples:\n"
      "  tandem models list\n"
      "  tandem models inspect model.gguf\n"
      "  tandem models verify model.gguf");
  app->require_subcommand(1);
  CLI::App* list = app->add_subcommand("list", "Files found by name, and shapes of the catalogue");
  list->footer("Example:\n  tandem models list --json");
  list->callback([flags, &action] { action = [flags] { return List(*flags); }; });
  CLI::App* path = app->add_subcommand("path", "The file a name stands for");
  path->footer("Example:\n  tandem models path smollm2-135m");
  path->add_option("name", flags->name)->required();
  path->callback([flags, &action] { action = [flags] { return Path(*flags); }; });
  CLI::App* show = app->add_subcommand("show", "Shape, weight types, sizes, tokenizer");
  show->footer("Examples:\n  tandem models show smollm2-135m\n  tandem models show llama-3.1-8b");
  show->add_option("name", flags->name, "A name, a path, synthetic:..., or a catalogue shape")
      ->required();
  show->callback([flags, &action] { action = [flags] { return Show(*flags); }; });
  CLI::App* synthesize = app->add_subcommand("synthesize", "Write a seeded random model as GGUF");
  synthesize->footer(
      "Examples:\n"
      "  tandem models synthesize h=256,l=4,heads=8,kv=2,type=q4_1,seed=7 -o tiny.gguf\n"
      "  tandem models synthesize h=256,l=4,heads=8,kv=2,arch=qwen3,window=128 -o tiny.gguf\n"
      "arch is llama, qwen2 or qwen3; bias=1, window=N, scale=F (linear), yarn=F,orig=N and\n"
      "llama3=F,orig=N add what files of these families may have.");
  synthesize
      ->add_option("spec", flags->spec,
                   "h=...,l=...,heads=...,kv=...,ffn=...,vocab=...,type=...,seed=...")
      ->required();
  synthesize->add_option("-o,--out", flags->out, "File to write")->required();
  synthesize->add_option("--split", flags->split, "Write as this many parts, -00001-of-0000N.gguf")
      ->check(CLI::Range(1, 99999));
  synthesize->callback([flags, &action] { action = [flags] { return Synthesize(*flags); }; });
  AddModelCheckCommands(*app, action);
  for (CLI::App* sub : {list, path, show, synthesize})
    sub->add_flag("--json", flags->json, "JSON on stdout");
}

}  // namespace tandem
