// Chat templates: a bounded subset of Jinja2, enough for the templates that chat models ship.
// A construct outside the subset is Error(kUnsupported) that names it and its line, at parse time;
// loops, output and nesting are bounded, so a template from a file cannot run away.
//
//   ChatTemplate t = ChatTemplate::Parse(model.chat_template());
//   std::string prompt = t.Render({{"user", "Hi"}}, {.bos = "<s>", .add_generation_prompt = true});
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

struct ChatMessage {
  std::string role;
  std::string content;
};

struct ChatTemplateOptions {
  std::string bos;
  std::string eos;
  bool add_generation_prompt = true;
};

class ChatTemplate {
 public:
  static ChatTemplate Parse(std::string_view source);
  // Throws Error(kInvalidArgument) with the template's own message when it calls raise_exception.
  std::string Render(const std::vector<ChatMessage>& messages,
                     const ChatTemplateOptions& options) const;

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program_;
};

}  // namespace tandem
