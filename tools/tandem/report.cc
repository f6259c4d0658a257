// tandem report: one self-contained HTML file of a results folder.
#include "engine/lab/report.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>

#include "engine/base/error.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/exit_code.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

struct ReportFlags {
  std::vector<std::string> inputs;
  std::string out;
  std::string picture;  // "prefill" or "decode": an SVG of that crossover instead of the page
  std::string plugin;   // of the picture
  bool json = false;
};

// The .jsonl files that a folder or a file argument names.
std::vector<fs::path> RecordFiles(const std::vector<std::string>& inputs) {
  std::vector<fs::path> files;
  for (const std::string& input : inputs) {
    if (fs::is_directory(input)) {
      for (const auto& entry : fs::directory_iterator(input)) {
        if (entry.path().extension() == ".jsonl") files.push_back(entry.path());
      }
    } else if (fs::exists(input)) {
      files.emplace_back(input);
    } else {
      Fail(ErrorCode::kNotFound,
           "report: no results at " + input + "; run a scenario first (tandem run)");
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

void WriteWhole(const fs::path& path, const std::string& text) {
  fs::path part = path.string() + ".part";
  {
    std::ofstream file(part, std::ios::binary | std::ios::trunc);
    file << text;
    if (!file.flush()) Fail(ErrorCode::kIo, "report: cannot write " + path.string());
  }
  std::error_code error;
  fs::rename(part, path, error);
  if (error) Fail(ErrorCode::kIo, "report: cannot write " + path.string() + ": " + error.message());
}

int Report(const ReportFlags& flags) {
  ReportInput input;
  std::vector<fs::path> files = RecordFiles(flags.inputs);
  for (const fs::path& file : files) {
    bool torn = false;
    std::vector<Record> records = ReadRecords(file.string(), &torn);
    if (torn)
      PrintNote("warning: " + file.string() + ": the last line is torn (a killed run); skipped");
    input.records.insert(input.records.end(), records.begin(), records.end());
  }
  if (input.records.empty()) {
    Fail(ErrorCode::kNotFound,
         "report: no records in " + flags.inputs.front() + "; run a scenario first (tandem run)");
  }
  fs::path first = flags.inputs.front();
  fs::path folder = fs::is_directory(first) ? first : first.parent_path();
  input.title = fs::absolute(folder).lexically_normal().filename().string();
  input.command = "tandem report " + flags.inputs.front();
  if (!flags.picture.empty()) {
    std::string svg = RenderPicture(input, flags.picture, flags.plugin);
    if (svg.empty()) {
      Fail(ErrorCode::kNotFound,
           fmt::format("report: no scenario here varies both model size and link{}; run "
                       "scenarios/link_crossover.yaml",
                       flags.plugin.empty() ? "" : " with the plugin " + flags.plugin));
    }
    WriteWhole(
        flags.out.empty() ? folder / ("crossover-" + flags.picture + ".svg") : fs::path(flags.out),
        svg);
    return kExitOk;
  }
  fs::path out = flags.out.empty() ? folder / "report.html" : fs::path(flags.out);
  WriteWhole(out, RenderReport(input));
  if (flags.json) {
    PrintJson(
        {{"report", out.string()}, {"records", input.records.size()}, {"files", files.size()}});
  } else {
    PrintLine(fmt::format("{} records of {} scenarios: {}", input.records.size(), files.size(),
                          out.string()));
  }
  return kExitOk;
}

}  // namespace

void AddReportCommand(CLI::App& root, Action& action) {
  auto flags = std::make_shared<ReportFlags>();
  CLI::App* app = root.add_subcommand("report", "One self-contained HTML file of a results folder");
  app->footer("Example:\n  tandem report results/my-machine -o report.html");
  app->add_option("inputs", flags->inputs, "A results folder, or record files (.jsonl)")
      ->required();
  app->add_option("-o,--out", flags->out, "File to write (default: report.html in the folder)");
  CLI::Option* picture =
      app->add_option("--picture", flags->picture,
                      "Write one crossover chart as SVG instead: prefill or decode")
          ->check(CLI::IsMember({"prefill", "decode"}));
  app->add_option("--plugin", flags->plugin,
                  "Of which split the picture is (default: the first that moves anything)")
      ->needs(picture);
  app->add_flag("--json", flags->json, "What was written, as JSON on stdout");
  app->callback([flags, &action] { action = [flags] { return Report(*flags); }; });
}

}  // namespace tandem
