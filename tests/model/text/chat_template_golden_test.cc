// Chat templates against Python's jinja2 (tools/make-chat-template-golden).

#include <gtest/gtest.h>

#include <ctime>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/model/chat_template.h"

namespace tandem {
namespace {

class ChatTemplateGoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    std::ifstream file("tests/golden/chat_template/cases.json");
    ASSERT_TRUE(file) << "run from the repository's root";
    golden_ = nlohmann::json::parse(file);
  }

  std::vector<ChatMessage> Conversation(const std::string& name) const {
    std::vector<ChatMessage> messages;
    for (const auto& message : golden_.at("conversations").at(name)) {
      messages.push_back({message.at("role"), message.at("content")});
    }
    return messages;
  }

  ChatTemplateOptions Options(bool add_generation_prompt) const {
    const std::time_t now = golden_.at("now");
    std::tm broken_down{};
    gmtime_r(&now, &broken_down);
    return {golden_.at("bos"), golden_.at("eos"), add_generation_prompt, broken_down};
  }

  nlohmann::json golden_;
};

TEST_F(ChatTemplateGoldenTest, ModelFormatsRenderAsInPython) {
  int compared = 0;
  for (const auto& [name, source] : golden_.at("templates").items()) {
    const ChatTemplate chat = ChatTemplate::Parse(source.get<std::string>());
    for (const auto& golden : golden_.at("cases")) {
      if (golden.at("template") != name) continue;
      SCOPED_TRACE(golden.dump());
      const auto messages = Conversation(golden.at("conversation"));
      const auto options = Options(golden.at("add_generation_prompt"));
      if (golden.contains("error")) {
        EXPECT_THROW(chat.Render(messages, options), Error);
      } else {
        EXPECT_EQ(chat.Render(messages, options), golden.at("output").get<std::string>());
      }
      ++compared;
    }
  }
  EXPECT_GT(compared, 200);
}

TEST_F(ChatTemplateGoldenTest, SnippetsRenderAsInPython) {
  const auto messages = Conversation("plain");
  for (const auto& snippet : golden_.at("snippets")) {
    const auto source = snippet.at(0).get<std::string>();
    SCOPED_TRACE(source);
    std::optional<std::string> output;
    std::string error;
    try {
      output = ChatTemplate::Parse(source).Render(messages, Options(true));
    } catch (const Error& e) {
      error = e.what();
    }
    if (snippet.at(1).is_null()) {
      EXPECT_FALSE(output.has_value()) << *output;
    } else {
      EXPECT_EQ(output, snippet.at(1).get<std::string>()) << error;
    }
  }
}

}  // namespace
}  // namespace tandem
