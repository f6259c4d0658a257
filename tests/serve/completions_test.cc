// The completion operations, whole and streamed, through a real socket.
#include <gmock/gmock.h>

#include "tests/serve/server_fixture.h"

namespace tandem::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::vector<int32_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const unsigned char*>(text.data()),
          reinterpret_cast<const unsigned char*>(text.data()) + text.size()};
}

class CompletionsTest : public ServerTest {
 protected:
  void Answer(const std::string& text) {
    if (engine_ == nullptr) engine_ = std::make_unique<FakeEngine>();
    engine_->script = [text](const Request&) { return Bytes(text); };
  }
  static json Chat(const json& extra = {}) {
    json body{{"messages", {{{"role", "user"}, {"content", "hi"}}}}};
    body.update(extra.is_null() ? json::object() : extra);
    return body;
  }
  std::vector<json> Stream(const std::string& path, json body) {
    body["stream"] = true;
    RawResponse response = Post(path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_TRUE(response.complete);
    EXPECT_EQ(response.headers["content-type"], "text/event-stream");
    std::vector<json> chunks;
    std::vector<std::string> events = Events(response.body);
    EXPECT_FALSE(events.empty());
    if (events.empty()) return chunks;
    EXPECT_EQ(events.back(), "[DONE]");
    events.pop_back();
    for (const std::string& event : events) chunks.push_back(json::parse(event));
    return chunks;
  }
};

TEST_F(CompletionsTest, AnswersWithTextUsageAndCost) {
  StartServer();
  json body = Parse(Post("/v1/completions", {{"prompt", "abc"}, {"max_tokens", 5}}));
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["model"], "fake");
  EXPECT_EQ(body["choices"].size(), 1u);
  EXPECT_EQ(body["choices"][0]["text"], "abcab");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_TRUE(body["choices"][0]["logprobs"].is_null());
  EXPECT_EQ(body["usage"],
            json::parse(R"({"prompt_tokens":3,"completion_tokens":5,"total_tokens":8})"));
  const json& cost = body["tandem"];
  EXPECT_EQ(cost["plugin"], "fake");
  EXPECT_EQ(cost["plan_hash"], "0123456789abcdef0123456789abcdef");
  EXPECT_EQ(cost["fidelity"], "emulated");
  EXPECT_EQ(cost["prefill"]["steps"], 1);
  EXPECT_EQ(cost["prefill"]["link_bytes"], 1000);
  EXPECT_EQ(cost["decode"]["steps"], 4);
  EXPECT_EQ(cost["decode"]["link_bytes"], 40);
  EXPECT_EQ(cost["decode"]["step_ms"], 4.0);
  EXPECT_EQ(cost["decode"]["link_busy_ms"], 1.0);
}

TEST_F(CompletionsTest, AnswersAChatThroughTheTemplate) {
  Answer("hello");
  StartServer();
  for (const char* path : {"/v1/chat/completions", "/chat/completions"}) {
    json body = Parse(Post(path, Chat()));
    EXPECT_EQ(body["object"], "chat.completion");
    EXPECT_EQ(body["choices"][0]["message"]["content"], "hello");
    EXPECT_EQ(body["choices"][0]["message"]["role"], "assistant");
    EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  }
  std::vector<int32_t> prompt = engine_->submitted().at(0).prompt;
  EXPECT_EQ(prompt.front(), ByteTokenizer::kStart);
  EXPECT_EQ(prompt.back(), ByteTokenizer::kStart);
  EXPECT_EQ(prompt.size(), 1 + 7 + 1 + 1u) << "user:hi between two special tokens, then the turn";
}

TEST_F(CompletionsTest, StreamsOneChunkATokenAndRoleWithTheFirst) {
  Answer("abc");
  StartServer();
  std::vector<json> chunks = Stream("/v1/chat/completions", Chat());
  ASSERT_EQ(chunks.size(), 4u);
  std::string text;
  for (size_t i = 0; i < chunks.size(); ++i) {
    EXPECT_EQ(chunks[i]["object"], "chat.completion.chunk");
    EXPECT_EQ(chunks[i]["id"], chunks[0]["id"]);
    EXPECT_EQ(chunks[i]["created"], chunks[0]["created"]);
    const json& delta = chunks[i]["choices"][0]["delta"];
    EXPECT_EQ(delta.contains("role"), i == 0);
    text += delta.value("content", "");
    EXPECT_EQ(chunks[i].contains("tandem"), i + 1 == chunks.size());
    EXPECT_FALSE(chunks[i].contains("usage"));
  }
  EXPECT_EQ(text, "abc");
  EXPECT_EQ(chunks.back()["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(chunks.back()["choices"][0]["delta"], json::object());
  EXPECT_TRUE(chunks[0]["choices"][0]["finish_reason"].is_null());
}

TEST_F(CompletionsTest, SendsNothingBeforeTheFirstToken) {
  engine_ = std::make_unique<FakeEngine>();
  engine_->step_us = 300000;
  StartServer();
  RawConnection connection(port());
  connection.Send(RequestText("POST", "/v1/chat/completions", Chat({{"stream", true}}).dump()));
  connection.ReadUntil("\r\n\r\n");
  EXPECT_EQ(connection.ReadUntil("data:", std::chrono::milliseconds(100)), "");
  EXPECT_NE(connection.ReadUntil("data:"), "");
}

TEST_F(CompletionsTest, StreamsUsageWhenAsked) {
  Answer("abc");
  StartServer();
  std::vector<json> chunks =
      Stream("/v1/completions", {{"prompt", "x"}, {"stream_options", {{"include_usage", true}}}});
  ASSERT_EQ(chunks.size(), 5u);
  for (size_t i = 0; i + 1 < chunks.size(); ++i) EXPECT_TRUE(chunks[i].at("usage").is_null());
  EXPECT_TRUE(chunks.back()["choices"].empty());
  EXPECT_EQ(chunks.back()["usage"]["completion_tokens"], 4) << "the end token counts";
  EXPECT_TRUE(chunks.back().contains("tandem"));
  chunks =
      Stream("/v1/completions",
             {{"prompt", "x"},
              {"stream_options", {{"include_usage", true}, {"continuous_usage_stats", true}}}});
  EXPECT_EQ(chunks.at(0)["usage"]["completion_tokens"], 1);
  EXPECT_EQ(chunks.at(1)["usage"]["completion_tokens"], 2);
}

TEST_F(CompletionsTest, NeverSplitsACodePoint) {
  Answer("a\xC3\xA9\xE2\x82\xAC!");
  StartServer();
  std::vector<json> chunks = Stream("/v1/completions", {{"prompt", "x"}});
  std::string text;
  for (const json& chunk : chunks) text += chunk["choices"][0]["text"].get<std::string>();
  EXPECT_EQ(text, "a\xC3\xA9\xE2\x82\xAC!");
}

TEST_F(CompletionsTest, ReplacesACodePointThatNeverBecameWhole) {
  Answer("a\xE2\x82");
  StartServer();
  json body = Parse(Post("/v1/completions", {{"prompt", "x"}, {"max_tokens", 3}}));
  EXPECT_EQ(body["choices"][0]["text"], "a\xEF\xBF\xBD");
}

TEST_F(CompletionsTest, StopStringsNeverShowAndEndTheRequest) {
  Answer("one two STOP three" + std::string(80, '.'));
  engine_->step_us = 1000;
  StartServer();
  json request{{"prompt", "x"}, {"max_tokens", 100}, {"stop", {"STOP"}}};
  json body = Parse(Post("/v1/completions", request));
  EXPECT_EQ(body["choices"][0]["text"], "one two ");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(engine_->WaitForCancelled(1));
  std::string text;
  for (const json& chunk : Stream("/v1/completions", request)) {
    text += chunk["choices"][0]["text"].get<std::string>();
  }
  EXPECT_EQ(text, "one two ");
}

TEST_F(CompletionsTest, TextHeldBackForAStopStringComesAtTheEnd) {
  Answer("abST");
  StartServer();
  json request{{"prompt", "x"}, {"max_tokens", 4}, {"stop", "STOP"}};
  EXPECT_EQ(Parse(Post("/v1/completions", request))["choices"][0]["text"], "abST");
  std::string text;
  std::vector<json> chunks = Stream("/v1/completions", request);
  for (const json& chunk : chunks) text += chunk["choices"][0]["text"].get<std::string>();
  EXPECT_EQ(text, "abST");
  EXPECT_EQ(chunks.back()["choices"][0]["finish_reason"], "length");
}

TEST_F(CompletionsTest, GivesSeveralChoicesTheirOwnSeeds) {
  StartServer();
  json body = Parse(Post("/v1/completions",
                         {{"prompt", {"ab", "cd"}}, {"n", 2}, {"seed", 7}, {"max_tokens", 2}}));
  ASSERT_EQ(body["choices"].size(), 4u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(body["choices"][i]["index"], i);
    EXPECT_EQ(body["choices"][i]["text"], i < 2 ? "ab" : "cd");
  }
  EXPECT_EQ(body["usage"]["prompt_tokens"], 4) << "each prompt counts once";
  EXPECT_EQ(body["usage"]["completion_tokens"], 8);
  EXPECT_EQ(engine_->submitted().at(0).sampling.seed, 7u);
  EXPECT_EQ(engine_->submitted().at(1).sampling.seed, 8u);
  EXPECT_EQ(engine_->submitted().at(2).sampling.seed, 7u);
}

TEST_F(CompletionsTest, StreamsSeveralChoicesEachWithOneEnd) {
  StartServer();
  std::vector<json> chunks = Stream("/v1/chat/completions", Chat({{"n", 3}, {"max_tokens", 4}}));
  std::map<int, int> ends, roles;
  for (const json& chunk : chunks) {
    for (const json& choice : chunk["choices"]) {
      ends[choice["index"]] += !choice["finish_reason"].is_null();
      roles[choice["index"]] += choice["delta"].contains("role");
    }
  }
  EXPECT_EQ(ends, (std::map<int, int>{{0, 1}, {1, 1}, {2, 1}}));
  EXPECT_EQ(roles, (std::map<int, int>{{0, 1}, {1, 1}, {2, 1}}));
}

TEST_F(CompletionsTest, DrawsASeedWhenNoneIsGiven) {
  StartServer();
  Post("/v1/completions", {{"prompt", "x"}});
  Post("/v1/completions", {{"prompt", "x"}});
  EXPECT_NE(engine_->submitted().at(0).sampling.seed, engine_->submitted().at(1).sampling.seed);
}

TEST_F(CompletionsTest, EchoesThePromptWithItsLogprobs) {
  StartServer();
  json body = Parse(Post("/v1/completions",
                         {{"prompt", "abc"}, {"echo", true}, {"logprobs", 1}, {"max_tokens", 1}}));
  const json& choice = body["choices"][0];
  EXPECT_EQ(choice["text"], "abca");
  EXPECT_EQ(choice["logprobs"]["tokens"], json({"a", "b", "c", "a"}));
  EXPECT_EQ(choice["logprobs"]["text_offset"], json({0, 1, 2, 3}));
  EXPECT_TRUE(choice["logprobs"]["token_logprobs"][0].is_null());
  double expected = 2 - std::log(std::exp(2) + 257);
  EXPECT_NEAR(choice["logprobs"]["token_logprobs"][1], expected, 1e-5);
  EXPECT_NEAR(choice["logprobs"]["top_logprobs"][2]["c"], expected, 1e-5);
  EXPECT_EQ(choice["logprobs"]["token_logprobs"][3], -0.5);
}

TEST_F(CompletionsTest, ScoresAPromptWithoutGenerating) {
  StartServer();
  json request{{"prompt", {97, 98}}, {"echo", true}, {"logprobs", 0}, {"max_tokens", 0}};
  json body = Parse(Post("/v1/completions", request));
  const json& choice = body["choices"][0];
  EXPECT_EQ(choice["text"], "ab");
  EXPECT_EQ(choice["logprobs"]["tokens"].size(), 2u);
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(body["usage"]["completion_tokens"], 0);
  std::vector<json> chunks = Stream("/v1/completions", request);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0]["choices"][0]["text"], "ab");
  EXPECT_EQ(chunks[0]["choices"][0]["logprobs"]["tokens"].size(), 2u);
}

TEST_F(CompletionsTest, GivesChatLogprobs) {
  Answer("ab");
  StartServer();
  json body = Parse(Post("/v1/chat/completions",
                         Chat({{"logprobs", true}, {"top_logprobs", 2}, {"max_tokens", 2}})));
  const json& content = body["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[1]["token"], "b");
  EXPECT_EQ(content[1]["logprob"], -0.5);
  EXPECT_EQ(content[1]["top_logprobs"].size(), 2u);
  EXPECT_EQ(content[1]["top_logprobs"][1]["token"], "c");
}

TEST_F(CompletionsTest, PassesLimitsToTheEngine) {
  StartServer();
  Post("/v1/completions", {{"prompt", "x"},
                           {"max_tokens", 9},
                           {"min_tokens", 3},
                           {"ignore_eos", true},
                           {"temperature", 0.25},
                           {"top_k", 5}});
  Post("/v1/chat/completions", Chat({{"max_completion_tokens", 11}}));
  Request first = engine_->submitted().at(0);
  EXPECT_EQ(first.max_tokens, 9u);
  EXPECT_EQ(first.min_tokens, 3u);
  EXPECT_TRUE(first.ignore_eos);
  EXPECT_EQ(first.sampling.temperature, 0.25);
  EXPECT_EQ(first.sampling.top_k, 5u);
  EXPECT_EQ(engine_->submitted().at(1).max_tokens, 11u);
}

TEST_F(CompletionsTest, RefusesPromptsThatDoNotFit) {
  engine_ = std::make_unique<FakeEngine>(32);
  StartServer();
  ExpectError(Post("/v1/completions", {{"prompt", ""}}), 400, "prompt");
  EXPECT_EQ(Post("/v1/completions", {{"prompt", std::string(31, 'x')}}).status, 200);
  RawResponse full = Post("/v1/completions", {{"prompt", std::string(32, 'x')}});
  ExpectError(full, 400, "prompt");
  EXPECT_EQ(Parse(full)["error"]["code"], "context_length_exceeded");
  ExpectError(Post("/v1/completions", {{"prompt", std::string(33, 'x')}}), 400, "prompt");
  ExpectError(Post("/v1/completions", {{"prompt", std::string(1 << 20, 'x')}}), 400, "prompt");
  ExpectError(Post("/v1/chat/completions",
                   {{"messages", {{{"role", "user"}, {"content", std::string(50, 'x')}}}}}),
              400, "messages");
  EXPECT_EQ(Get("/health").status, 200);
}

TEST_F(CompletionsTest, AFullQueueIs429WithAnOffer) {
  engine_ = std::make_unique<FakeEngine>(256, /*slots=*/1, /*max_queue=*/1);
  engine_->step_us = 50000;
  StartServer({.retry_header = true});
  RawConnection first(port()), second(port());
  std::string request = RequestText("POST", "/v1/completions", R"({"prompt":"x","stream":true})");
  first.Send(request);
  second.Send(request);
  ASSERT_TRUE(engine_->WaitForOpen(2));
  RawResponse refused = Post("/v1/completions", {{"prompt", "x"}});
  ExpectError(refused, 429);
  EXPECT_EQ(refused.headers["retry-after"], "1");
  EXPECT_EQ(refused.headers["x-should-retry"], "false");
}

TEST_F(CompletionsTest, SubmitsAllChoicesOrNone) {
  engine_ = std::make_unique<FakeEngine>(256, /*slots=*/1, /*max_queue=*/1);
  engine_->step_us = 1000;
  StartServer();
  ExpectError(Post("/v1/completions", {{"prompt", "x"}, {"n", 4}}), 429);
  EXPECT_TRUE(engine_->WaitForOpen(0)) << "what was submitted is cancelled";
}

TEST_F(CompletionsTest, AFailureIs500OrAnErrorFrame) {
  engine_ = std::make_unique<FakeEngine>();
  engine_->fail_at_step = 0;
  StartServer();
  RawResponse whole = Post("/v1/completions", {{"prompt", "x"}});
  ExpectError(whole, 500);
  EXPECT_THAT(whole.body, HasSubstr("device d1 is lost"));
  server_.reset();
  engine_ = std::make_unique<FakeEngine>();
  engine_->fail_at_step = 2;
  StartServer();
  RawResponse stream = Post("/v1/completions", {{"prompt", "x"}, {"stream", true}});
  std::vector<std::string> events = Events(stream.body);
  ASSERT_GE(events.size(), 3u);
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_TRUE(json::parse(events[events.size() - 2]).contains("error"));
}

TEST_F(CompletionsTest, ANumberThatIsNoneIsAFailure) {
  engine_ = std::make_unique<FakeEngine>();
  engine_->nan_logprobs = true;
  StartServer();
  ExpectError(Post("/v1/completions", {{"prompt", "x"}, {"logprobs", 1}}), 500);
  EXPECT_EQ(Post("/v1/completions", {{"prompt", "x"}}).status, 200);
}

TEST_F(CompletionsTest, ModelsWithoutAVocabularySpeakIds) {
  engine_ = std::make_unique<FakeEngine>(256, 4, 4, /*with_tokenizer=*/false);
  StartServer();
  ExpectError(Post("/v1/completions", {{"prompt", "x"}}), 501);
  ExpectError(Post("/v1/chat/completions", Chat()), 501);
  json body = Parse(Post("/v1/completions", {{"prompt", {5, 6}}, {"max_tokens", 3}}));
  EXPECT_EQ(body["choices"][0]["token_ids"], json({5, 6, 5})) << "the only form there is";
  EXPECT_EQ(body["choices"][0]["text"], "");
}

TEST_F(CompletionsTest, ReturnsTokenIdsWhenAsked) {
  Answer("ab");
  StartServer();
  json request{{"prompt", "x"}, {"max_tokens", 2}, {"return_token_ids", true}};
  EXPECT_EQ(Parse(Post("/v1/completions", request))["choices"][0]["token_ids"], json({97, 98}));
  json ids = json::array();
  for (const json& chunk : Stream("/v1/completions", request)) {
    for (const json& id : chunk["choices"][0].value("token_ids", json::array())) ids.push_back(id);
  }
  EXPECT_EQ(ids, json({97, 98}));
}

}  // namespace
}  // namespace tandem::testing
