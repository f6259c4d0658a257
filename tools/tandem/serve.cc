// tandem serve: OpenAI-compatible HTTP and a live page.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <fstream>
#include <memory>
#include <string_view>

#include "engine/base/error.h"
#include "engine/serve/server.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/engine_flags.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"
#include "tools/tandem/plan_view.h"

namespace tandem {
namespace {

struct ServeFlags {
  EngineFlags engine;
  ServerOptions server;
  std::vector<std::string> key_files;
};

// The server that signals are passed on to; set while it runs.
Server* g_server = nullptr;

void OnSignal(int) {
  if (g_server != nullptr) g_server->RequestShutdown();
}

void OnInterrupt(int signal) {
  static volatile std::sig_atomic_t said = 0;
  if (said == 0) {
    said = 1;
    static constexpr std::string_view kText =
        "\nstopping when open requests have ended, at the latest after --shutdown-timeout; again "
        "to "
        "stop now\n";
    // A handler may not print by other means; what a broken stderr misses is no loss.
    [[maybe_unused]] ssize_t written = write(STDERR_FILENO, kText.data(), kText.size());
  }
  OnSignal(signal);
}

void ReadKeys(const std::string& path, std::vector<std::string>& keys) {
  std::ifstream file(path);
  if (!file) Fail(ErrorCode::kInvalidArgument, "--api-key-file: cannot read " + path);
  for (std::string line; std::getline(file, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) keys.push_back(line);
  }
  if (keys.empty()) Fail(ErrorCode::kInvalidArgument, "--api-key-file: no key in " + path);
}

void Announce(const Engine& engine, const ServerOptions& options, int port) {
  const EngineInfo& info = engine.info();
  PrintNote(fmt::format(
      "{} on {} device{}, plugin {}, rig {}, plan {}, kernels {} with {} threads ({})",
      engine.model().config().name.empty() ? engine.model().source() : engine.model().config().name,
      info.planned.plan.n_devices, info.planned.plan.n_devices == 1 ? "" : "s",
      info.planned.plan.plugin, engine.options().rig.name, info.planned.plan_hash.substr(0, 12),
      info.ops_name, info.threads, ToString(info.fidelity)));
  const PlanLimits& limits = engine.options().limits;
  PrintNote(fmt::format("context {} tokens over {} slot{}: {} tokens a sequence", limits.context,
                        limits.max_sequences, limits.max_sequences == 1 ? "" : "s",
                        limits.context / std::max(limits.max_sequences, 1u)));
  PrintNote(MemoryText(info.planned.verified.memory));
  PrintNote(fmt::format(
      "listening on http://{}:{}  (POST /v1/chat/completions, /v1/completions; a live page at /)",
      options.host, port));
}

int Serve(ServeFlags flags) {
  ConsoleLog log(flags.engine.verbose);
  for (const std::string& path : flags.key_files) ReadKeys(path, flags.server.api_keys);
  flags.server.log = &log;
  std::shared_ptr<const Model> model = OpenModel(flags.engine.model);
  // A name goes to clients as it is; from a path they get the file's own name, not where it lies.
  bool is_name = flags.engine.model.find('/') == std::string::npos;
  if (flags.server.model_alias.empty() && is_name) flags.server.model_alias = flags.engine.model;
  EngineOptions options = flags.engine.MakeOptions(model, "auto", 4096, 4, &log);
  std::atomic<bool> lost{false};
  options.on_device_lost = [&lost](const std::string&) {
    lost = true;
    OnSignal(SIGTERM);
  };
  std::unique_ptr<Engine> engine = Engine::Create(std::move(options));
  Server server(*engine, flags.server);
  server.Start();
  g_server = &server;
  std::signal(SIGTERM, OnInterrupt);
  std::signal(SIGINT, OnInterrupt);
  Announce(*engine, flags.server, server.port());
  server.Wait();
  g_server = nullptr;
  PrintNote(lost ? "stopped: a device was lost" : "stopped");
  return lost ? kExitDevice : kExitOk;
}

}  // namespace

void AddServeCommand(CLI::App& root, Action& action) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* app = root.add_subcommand("serve", "OpenAI-compatible HTTP and a live page");
  app->footer(
      "Examples:\n"
      "  tandem serve\n"
      "  tandem serve -m smollm2-135m --plugin tensor_split --rig 2x3090-nvlink --port 8080 -c "
      "8192 -np 8\n"
      "  curl localhost:8080/v1/chat/completions -d "
      "'{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}'");
  flags->engine.AddModel(*app);
  flags->engine.AddPlan(*app);
  flags->engine.AddCompute(*app);
  app->add_option("--host", flags->server.host, "Address to listen on")->capture_default_str();
  app->add_option("--port", flags->server.port, "Port; 0 picks one")
      ->capture_default_str()
      ->check(CLI::Range(0, 65535));
  app->add_option("-a,--alias", flags->server.model_alias, "Model name that clients see")
      ->check(CLI::Validator(
          [](const std::string& name) { return name.empty() ? "got '', want a name" : ""; }, ""));
  app->add_option("--api-key", flags->server.api_keys, "Key that clients must send; repeatable");
  app->add_option("--api-key-file", flags->key_files, "File with a key a line");
  app->add_option("--cors-origins", flags->server.cors_origins,
                  "Origins that browsers may call from");
  app->add_option("--timeout", flags->server.read_timeout_s, "Read timeout in seconds")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 86400.0));
  app->add_option("--shutdown-timeout", flags->server.shutdown_timeout_s,
                  "Seconds that open requests may take to end")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 86400.0));
  app->add_option("--threads-http,--max-connections", flags->server.max_connections,
                  "Connections at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
  app->add_flag("--allow-insecure-bind", flags->server.allow_insecure_bind,
                "Listen beyond this machine even with an HTTP library that has known holes");
  app->add_flag("--no-retries", flags->server.retry_header,
                "Tell client libraries not to retry on their own, so that overload is not hidden");
  app->callback([flags, &action] { action = [flags] { return Serve(*flags); }; });
}

}  // namespace tandem
