// Chat templates: a bounded subset of Jinja2, enough for the templates that chat models ship.
// if, for and set, expressions with Python's meaning, the common filters, tests and methods, with
// trim_blocks and lstrip_blocks on, as Hugging Face renders them; macros, outside loops and without
// caller, varargs and kwargs. A construct outside the subset is Error(kUnsupported) that names it
// and its line, nearly always at parse time; steps, memory, output, nesting and the macros'
// recursion are bounded, so a template from a file cannot run away.
//
// A ChatTemplate is immutable; any thread may render it.
//
//   ChatTemplate t = ChatTemplate::Parse(model.chat_template());
//   std::string prompt = t.Render({{"user", "Hi"}}, {.bos = "<s>", .add_generation_prompt = true});
#pragma once

#include <ctime>
#include <memory>
#include <optional>
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
  // What strftime_now() tells; without it the template finds no such function, and templates that
  // print the date take the one they were made with.
  std::optional<std::tm> now;
};

class ChatTemplate {
 public:
  // Throws Error(kModelFile) for what is no Jinja at all, Error(kUnsupported) as above.
  static ChatTemplate Parse(std::string_view source);
  // The template sees messages, bos_token, eos_token, add_generation_prompt, and tools and
  // documents as none. Throws Error(kInvalidArgument) with the template's own message when it calls
  // raise_exception, or when it does what Python forbids or exceeds a limit; Error(kUnsupported)
  // for what only running it shows to be outside the subset.
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
