#include "engine/model/chat_template.h"

#include <utility>

#include "engine/model/text/jinja/evaluator.h"
#include "engine/model/text/jinja/parser.h"
#include "engine/model/text/utf8.h"

namespace tandem {

struct ChatTemplate::Program {
  jinja::Block block;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Program> program) : program_(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

ChatTemplate ChatTemplate::Parse(std::string_view source) {
  auto program = std::make_unique<Program>();
  program->block = jinja::Parse(text::ReplaceInvalidUtf8(source));
  return ChatTemplate(std::move(program));
}

std::string ChatTemplate::Render(const std::vector<ChatMessage>& messages,
                                 const ChatTemplateOptions& options) const {
  using jinja::Value;
  jinja::Runtime runtime;
  runtime.now = options.now;
  const auto string = [&runtime](std::string_view raw) {
    return runtime.NewString(text::ReplaceInvalidUtf8(raw));
  };
  std::vector<Value> list;
  for (const ChatMessage& message : messages) {
    list.push_back(runtime.NewDict(
        {{string("role"), string(message.role)}, {string("content"), string(message.content)}}));
  }
  // The names that Hugging Face's apply_chat_template defines.
  jinja::Variables variables;
  variables["messages"] = runtime.NewList(std::move(list));
  variables["bos_token"] = string(options.bos);
  variables["eos_token"] = string(options.eos);
  variables["add_generation_prompt"] = Value(options.add_generation_prompt);
  variables["tools"] = Value(jinja::None());
  variables["documents"] = Value(jinja::None());
  return jinja::Evaluate(program_->block, std::move(variables), runtime);
}

}  // namespace tandem
