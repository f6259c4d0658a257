// tandem render: the prompt that a chat becomes under a chat template, without running a model.
#include <fmt/core.h>

#include <ctime>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>

#include "engine/base/error.h"
#include "engine/model/chat_template.h"
#include "engine/model/load_model.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/engine_flags.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"

namespace tandem {
namespace {

using nlohmann::json;

struct RenderFlags {
  std::string model = EngineFlags().model;
  std::string template_file;
  std::string messages;
  std::string bos;
  std::string eos;
  bool no_generation_prompt = false;
  bool json = false;
};

std::string ReadAll(std::istream& in) {
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Fail(ErrorCode::kNotFound, fmt::format("render: cannot read {}", path));
  return ReadAll(file);
}

std::vector<ChatMessage> ParseChat(const std::string& text) {
  std::vector<ChatMessage> messages;
  try {
    for (const json& message : json::parse(text)) {
      messages.push_back({message.at("role"), message.at("content")});
    }
  } catch (const json::exception& error) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("render: the messages must be a JSON array of {{\"role\": ..., \"content\": "
                     "...}}: {}",
                     error.what()));
  }
  return messages;
}

std::string SpecialText(const Tokenizer& tokenizer, std::optional<int32_t> id) {
  return id ? tokenizer.TokenBytes(*id, true) : "";
}

int Render(const RenderFlags& flags) {
  ChatTemplateOptions options{.bos = flags.bos, .eos = flags.eos};
  options.add_generation_prompt = !flags.no_generation_prompt;
  const std::time_t now = std::time(nullptr);
  localtime_r(&now, &options.now.emplace());
  std::string source;
  if (flags.template_file.empty()) {
    const StoredVocabulary stored = LoadModelVocabulary(ModelPath(flags.model));
    if (stored.chat_template.empty()) {
      Fail(ErrorCode::kModelFile, fmt::format("render: {} has no chat template", flags.model));
    }
    source = stored.chat_template;
    if (stored.tokenizer != nullptr) {
      options.bos = SpecialText(*stored.tokenizer, stored.tokenizer->bos());
      options.eos = SpecialText(*stored.tokenizer, stored.tokenizer->eos());
    }
  } else {
    source = ReadFile(flags.template_file);
  }
  const auto messages = ParseChat(flags.messages == "-" ? ReadAll(std::cin) : flags.messages);
  const std::string prompt = ChatTemplate::Parse(source).Render(messages, options);
  if (flags.json) {
    PrintJson({{"prompt", prompt}});
  } else {
    PrintOut(prompt);
  }
  return kExitOk;
}

}  // namespace

void AddRenderCommand(CLI::App& root, Action& action) {
  auto flags = std::make_shared<RenderFlags>();
  CLI::App* app = root.add_subcommand("render", "The prompt that a chat becomes under a template");
  app->footer(
      "Examples:\n"
      "  echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | tandem render -\n"
      "  tandem render --chat-template-file llama-3.jinja --bos \"<s>\" - < chat.json");
  app->add_option("-m,--model", flags->model, "A name, a GGUF file or a safetensors folder, for its template")
      ->capture_default_str();
  app->add_option("--chat-template-file", flags->template_file, "A template instead of a model's");
  app->add_option("messages", flags->messages,
                  "JSON array of {\"role\", \"content\"}; '-' reads standard input")
      ->required();
  app->add_option("--bos", flags->bos, "The template's bos_token, with --chat-template-file");
  app->add_option("--eos", flags->eos, "The template's eos_token, with --chat-template-file");
  app->add_flag("--no-generation-prompt", flags->no_generation_prompt,
                "Do not open the answer's turn");
  app->add_flag("--json", flags->json, "One JSON object on stdout");
  app->callback([flags, &action] { action = [flags] { return Render(*flags); }; });
}

}  // namespace tandem
