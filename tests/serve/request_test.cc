// What gets in: JSON bounds, every field's accepted and refused values, keys and origins.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/base/error.h"
#include "engine/serve/access.h"
#include "engine/serve/api_error.h"
#include "engine/serve/framing.h"
#include "engine/serve/http.h"
#include "engine/serve/json_input.h"
#include "engine/serve/openai_request.h"

namespace tandem {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr RequestBounds kBounds{.vocab = 1000, .defaults = {.temperature = 1.0}};

// The error that a body gives; fails when it gives none.
template <class Parse>
ApiError ErrorOf(Parse parse) {
  try {
    parse();
  } catch (const ApiError& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was refused";
  return ApiError(0, "", "");
}

json WithPrompt(json extra) {
  json body{{"prompt", "x"}};
  body.update(extra);
  return body;
}

json WithMessages(json extra) {
  json body{{"messages", {{{"role", "user"}, {"content", "hi"}}}}};
  body.update(extra);
  return body;
}

TEST(JsonInputTest, RefusesWhatIsNoJsonObject) {
  for (const char* text : {"", "{", "[]", "1", "null", "\"x\"", "{\"a\":}", "{\"a\":1}x", "nul",
                           "{\"a\":1e999}", "{'a':1}", "{\"a\":\"\xff\"}",
                           "{\"a\":\"\xed\xa0\x80\"}", "{\"a\":\"\\ud800\"}", "{\"a\":\"\x01\"}"}) {
    ApiError error = ErrorOf([&] { ParseJsonBody(text); });
    EXPECT_EQ(error.status(), 400) << text;
  }
}

TEST(JsonInputTest, RefusesDeepNestingBeforeParsingIt) {
  std::string deep = "{\"a\":" + std::string(5'000'000, '[');
  EXPECT_THAT(ErrorOf([&] { ParseJsonBody(deep); }).what(), HasSubstr("64"));
  std::string closed = "{\"a\":" + std::string(64, '[') + std::string(64, ']') + "}";
  EXPECT_EQ(ErrorOf([&] { ParseJsonBody(closed); }).status(), 400);
  std::string within = "{\"a\":" + std::string(63, '[') + std::string(63, ']') + "}";
  EXPECT_NO_THROW(ParseJsonBody(within));
}

TEST(JsonInputTest, CountsNoBracketsInsideStrings) {
  std::string text = "{\"a\":\"\\\"" + std::string(1000, '[') + "\"}";
  EXPECT_EQ(ParseJsonBody(text)["a"].get<std::string>().size(), 1001u);
}

TEST(JsonInputTest, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_EQ(ErrorOf([] { ParseJsonBody(R"({"n":1,"n":2})"); }).param(), "n");
  EXPECT_EQ(ErrorOf([] { ParseJsonBody(R"({"a":[{"b":1},{"c":1,"c":2}]})"); }).param(), "c");
  EXPECT_NO_THROW(ParseJsonBody(R"({"a":{"b":1},"c":{"b":1},"b":[{"b":1},{"b":2}]})"));
}

TEST(JsonInputTest, IntegersAreWholeAndWithinRange) {
  for (const char* text : {"1.0", "1.5", "true", "\"1\"", "[]", "{}", "1e3", "9223372036854775808",
                           "18446744073709551616", "-9223372036854775809", "101", "-1"}) {
    EXPECT_EQ(ErrorOf([&] { CheckedInteger(json::parse(text), "f", 0, 100); }).param(), "f")
        << text;
  }
  EXPECT_EQ(CheckedInteger(json::parse("100"), "f", 0, 100), 100);
  EXPECT_EQ(CheckedInteger(json::parse("-9223372036854775808"), "f", INT64_MIN, INT64_MAX),
            INT64_MIN);
}

TEST(JsonInputTest, NullIsAbsent) {
  json body{{"a", nullptr}};
  EXPECT_FALSE(Fields(body).Integer("a", 0, 1).has_value());
  EXPECT_FALSE(Fields(body).Bool("a").has_value());
  EXPECT_FALSE(Fields(body).String("b").has_value());
}

struct BadField {
  const char* body;
  const char* param;
};

TEST(OpenAiRequestTest, RefusesValuesOutOfBoundsNamingTheField) {
  const BadField cases[] = {
      {R"({"n":0})", "n"},
      {R"({"n":9})", "n"},
      {R"({"n":1.5})", "n"},
      {R"({"temperature":-0.1})", "temperature"},
      {R"({"temperature":2.1})", "temperature"},
      {R"({"temperature":"hot"})", "temperature"},
      {R"({"top_p":1.1})", "top_p"},
      {R"({"min_p":-1})", "min_p"},
      {R"({"top_k":-2})", "top_k"},
      {R"({"top_k":99999999999})", "top_k"},
      {R"({"presence_penalty":2.5})", "presence_penalty"},
      {R"({"frequency_penalty":-2.5})", "frequency_penalty"},
      {R"({"repetition_penalty":0})", "repetition_penalty"},
      {R"({"seed":1.5})", "seed"},
      {R"({"seed":9223372036854775808})", "seed"},
      {R"({"max_tokens":-1})", "max_tokens"},
      {R"({"max_tokens":2147483648})", "max_tokens"},
      {R"({"max_tokens":1e99})", "max_tokens"},
      {R"({"max_completion_tokens":-5})", "max_completion_tokens"},
      {R"({"max_tokens":3,"max_completion_tokens":4})", "max_tokens"},
      {R"({"max_tokens":3,"min_tokens":4})", "min_tokens"},
      {R"({"min_tokens":-1})", "min_tokens"},
      {R"({"ignore_eos":1})", "ignore_eos"},
      {R"({"stream":"yes"})", "stream"},
      {R"({"stream_options":{"include_usage":true}})", "stream_options"},
      {R"({"stream":true,"stream_options":[]})", "stream_options"},
      {R"({"stream":true,"stream_options":{"include_usage":1}})", "include_usage"},
      {R"({"stop":5})", "stop"},
      {R"({"stop":""})", "stop"},
      {R"({"stop":["a",1]})", "stop"},
      {R"({"stop":[""]})", "stop"},
      {R"({"logit_bias":5})", "logit_bias"},
      {R"({"logit_bias":{"1000":1}})", "logit_bias"},
      {R"({"logit_bias":{"-1":1}})", "logit_bias"},
      {R"({"logit_bias":{"x":1}})", "logit_bias"},
      {R"({"logit_bias":{"1":101}})", "logit_bias"},
      {R"({"logit_bias":{"1":"x"}})", "logit_bias"},
      {R"({"logit_bias":[[1]]})", "logit_bias"},
      {R"({"logit_bias":[[1000,1]]})", "logit_bias"},
      {R"({"best_of":5})", "best_of"},
      {R"({"model":5})", "model"},
      {R"({"logprobs":-1})", "logprobs"},
      {R"({"logprobs":21})", "logprobs"},
      {R"({"echo":"x"})", "echo"},
      {R"({"tools":[{"type":"function"}]})", "tools"},
      {R"({"tool_choice":"required"})", "tool_choice"},
      {R"({"functions":[{}]})", "functions"},
      {R"({"response_format":{"type":"json_object"}})", "response_format"},
      {R"({"response_format":"text"})", "response_format"},
      {R"({"grammar":"root ::= x"})", "grammar"},
      {R"({"suffix":"x"})", "suffix"},
      {R"({"chat_template_kwargs":{"tokenize":true}})", "chat_template_kwargs"},
      {R"({"modalities":["audio"]})", "modalities"},
  };
  for (const BadField& bad : cases) {
    json body = WithPrompt(json::parse(bad.body));
    ApiError error = ErrorOf([&] { ParseCompletionRequest(body, kBounds); });
    EXPECT_EQ(error.status(), 400) << bad.body;
    EXPECT_EQ(error.param(), bad.param) << bad.body << ": " << error.what();
    EXPECT_THAT(error.what(), HasSubstr(bad.param)) << bad.body;
  }
}

TEST(OpenAiRequestTest, RefusesBadPromptsAndMessages) {
  for (const char* text :
       {"{}", R"({"prompt":null})", R"({"prompt":5})", R"({"prompt":[]})", R"({"prompt":[[]]})",
        R"({"prompt":[1,"x"]})", R"({"prompt":["x",5]})", R"({"prompt":[-1]})",
        R"({"prompt":[1000]})", R"({"prompt":[1.5]})", R"({"prompt":[[1],[1000]]})",
        R"({"prompt":{}})", R"({"prompt":[true]})"}) {
    ApiError error = ErrorOf([&] { ParseCompletionRequest(json::parse(text), kBounds); });
    EXPECT_THAT(error.param(), HasSubstr("prompt")) << text;
  }
  for (const char* text :
       {"{}", R"({"messages":[]})", R"({"messages":"hi"})", R"({"messages":[5]})",
        R"({"messages":[{}]})", R"({"messages":[{"role":"user"}]})",
        R"({"messages":[{"role":"god","content":"x"}]})",
        R"({"messages":[{"role":5,"content":"x"}]})",
        R"({"messages":[{"role":"user","content":5}]})",
        R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})",
        R"({"messages":[{"role":"user","content":[{"type":"text","text":5}]}]})",
        R"({"messages":[{"role":"user","content":["x"]}]})",
        R"({"messages":[{"role":"assistant","tool_calls":[{}]}]})",
        R"({"messages":[{"role":"tool","content":"x"}]})"}) {
    ApiError error = ErrorOf([&] { ParseChatRequest(json::parse(text), kBounds); });
    EXPECT_THAT(error.param(), HasSubstr("messages")) << text;
  }
}

TEST(OpenAiRequestTest, BoundsCountsThatMultiply) {
  json many{{"prompt", json::array()}};
  for (int i = 0; i < 64; ++i) many["prompt"].push_back("x");
  EXPECT_EQ(ParseCompletionRequest(many, kBounds).prompts.size(), 64u);
  many["n"] = 2;
  EXPECT_EQ(ErrorOf([&] { ParseCompletionRequest(many, kBounds); }).param(), "n");
  json stops = WithPrompt({{"stop", json::array()}});
  for (int i = 0; i < 10000; ++i) stops["stop"].push_back("x");
  EXPECT_EQ(ErrorOf([&] { ParseCompletionRequest(stops, kBounds); }).param(), "stop");
  json long_stop = WithPrompt({{"stop", std::string(257, 'x')}});
  EXPECT_EQ(ErrorOf([&] { ParseCompletionRequest(long_stop, kBounds); }).param(), "stop");
}

TEST(OpenAiRequestTest, ReadsEveryField) {
  json body = WithPrompt(json::parse(R"({"n":2,"max_tokens":7,"min_tokens":3,"ignore_eos":true,
      "temperature":0,"top_p":0.5,"top_k":40,"min_p":0.1,"seed":-5,"stop":["a","b"],
      "presence_penalty":1,"frequency_penalty":-1,"repetition_penalty":1.1,
      "logit_bias":{"5":-100,"7":2.5},"logprobs":3,"echo":true,"stream":true,
      "stream_options":{"include_usage":true,"continuous_usage_stats":true},
      "return_token_ids":true,"unknown_field":{"x":1},"user":"me","best_of":2})"));
  GenerateRequest r = ParseCompletionRequest(body, kBounds);
  EXPECT_EQ(r.n, 2u);
  EXPECT_EQ(r.max_tokens, 7u);
  EXPECT_EQ(r.min_tokens, 3u);
  EXPECT_TRUE(r.ignore_eos);
  EXPECT_EQ(r.sampling.temperature, 0);
  EXPECT_EQ(r.sampling.top_p, 0.5);
  EXPECT_EQ(r.sampling.top_k, 40u);
  EXPECT_EQ(r.sampling.min_p, 0.1);
  EXPECT_TRUE(r.has_seed);
  EXPECT_EQ(r.sampling.seed, static_cast<uint64_t>(-5));
  EXPECT_EQ(r.sampling.presence_penalty, 1);
  EXPECT_EQ(r.sampling.frequency_penalty, -1);
  EXPECT_EQ(r.sampling.repetition_penalty, 1.1);
  ASSERT_EQ(r.sampling.logit_bias.size(), 2u);
  EXPECT_EQ(r.sampling.logit_bias[0], std::make_pair(5, -100.0f));
  EXPECT_EQ(r.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(r.logprobs, 3);
  EXPECT_TRUE(r.echo && r.stream && r.include_usage && r.continuous_usage && r.return_token_ids);
}

TEST(OpenAiRequestTest, KeepsDefaultsWhereNothingIsSaid) {
  GenerateRequest completion = ParseCompletionRequest(WithPrompt(json::object()), kBounds);
  EXPECT_EQ(completion.max_tokens, 16u);
  EXPECT_EQ(completion.sampling.temperature, 1.0);
  EXPECT_EQ(completion.logprobs, -1);
  EXPECT_FALSE(completion.has_seed);
  GenerateRequest chat = ParseChatRequest(WithMessages({{"logprobs", nullptr}}), kBounds);
  EXPECT_FALSE(chat.max_tokens.has_value());
  EXPECT_EQ(chat.n, 1u);
}

TEST(OpenAiRequestTest, AcceptsEmptyFormsOfWhatItDoesNotSupport) {
  json body = WithMessages(json::parse(R"({"tools":[],"tool_choice":"none","functions":null,
      "response_format":{"type":"text"},"modalities":["text"],"grammar":"","seed":-1,"top_k":-1})"));
  GenerateRequest r = ParseChatRequest(body, kBounds);
  EXPECT_FALSE(r.has_seed);
  EXPECT_EQ(r.sampling.top_k, 0u);
}

TEST(OpenAiRequestTest, ReadsAllShapesOfPromptsAndContents) {
  auto prompts = [](const char* text) {
    return ParseCompletionRequest(json::parse(text), kBounds).prompts;
  };
  EXPECT_EQ(std::get<std::string>(prompts(R"({"prompt":""})").at(0)), "");
  EXPECT_EQ(prompts(R"({"prompt":["a","b"]})").size(), 2u);
  EXPECT_EQ(std::get<1>(prompts(R"({"prompt":[1,2,999]})").at(0)),
            (std::vector<int32_t>{1, 2, 999}));
  EXPECT_EQ(std::get<1>(prompts(R"({"prompt":[[1],[2,3]]})").at(1)), (std::vector<int32_t>{2, 3}));
  json messages = json::parse(R"({"messages":[{"role":"developer","content":"s"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"assistant","content":null}]})");
  std::vector<ChatMessage> read = ParseMessages(messages);
  EXPECT_EQ(read[0].role, "system");
  EXPECT_EQ(read[1].content, "ab");
  EXPECT_EQ(read[2].content, "");
}

TEST(OpenAiRequestTest, ChatLogprobsNeedTheirSwitch) {
  EXPECT_EQ(ParseChatRequest(WithMessages({{"logprobs", true}}), kBounds).logprobs, 0);
  EXPECT_EQ(
      ParseChatRequest(WithMessages({{"logprobs", true}, {"top_logprobs", 5}}), kBounds).logprobs,
      5);
  json alone = WithMessages({{"top_logprobs", 5}});
  EXPECT_EQ(ErrorOf([&] { ParseChatRequest(alone, kBounds); }).param(), "top_logprobs");
}

TEST(ApiErrorTest, HasTheFourKeysOfTheProtocol) {
  json error = ApiError(400, "invalid_request_error", "no", "n").Json()["error"];
  EXPECT_EQ(error["message"], "no");
  EXPECT_EQ(error["param"], "n");
  EXPECT_TRUE(error["code"].is_null());
  EXPECT_EQ(error["type"], "invalid_request_error");
  EXPECT_EQ(error.size(), 4u);
}

TEST(ApiErrorTest, MapsErrorsToStatus) {
  auto status = [](ErrorCode code) { return ApiError::From(Error(code, "x")).status(); };
  EXPECT_EQ(status(ErrorCode::kInvalidArgument), 400);
  EXPECT_EQ(status(ErrorCode::kNotFound), 404);
  EXPECT_EQ(status(ErrorCode::kOverloaded), 429);
  EXPECT_EQ(status(ErrorCode::kUnsupported), 501);
  EXPECT_EQ(status(ErrorCode::kCancelled), 503);
  EXPECT_EQ(status(ErrorCode::kDevice), 500);
}

HttpRequest WithHeaders(HttpHeaders headers) { return {.headers = std::move(headers)}; }

TEST(AccessTest, AsksForAKeyAndComparesAllOfIt) {
  Access access({.api_keys = {"secret", "other"}});
  EXPECT_NO_THROW(access.CheckKey(WithHeaders({{"authorization", "Bearer secret"}})));
  EXPECT_NO_THROW(access.CheckKey(WithHeaders({{"authorization", "bearer other"}})));
  EXPECT_NO_THROW(access.CheckKey(WithHeaders({{"x-api-key", "secret"}})));
  for (const char* value : {"", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets",
                            "Basic secret", "secret", "Bearer  secret"}) {
    auto check = [&] { access.CheckKey(WithHeaders({{"authorization", value}})); };
    EXPECT_EQ(ErrorOf(check).status(), 401) << value;
  }
  EXPECT_EQ(ErrorOf([&] { access.CheckKey({}); }).status(), 401);
  EXPECT_NO_THROW(Access({}).CheckKey({}));
  EXPECT_THROW(Access({.api_keys = {""}}), Error) << "an unset variable would open the door";
}

TEST(AccessTest, RefusesForeignPagesAndForeignNames) {
  Access access({});
  EXPECT_NO_THROW(access.CheckOrigin(WithHeaders({{"host", "127.0.0.1:8080"}})));
  EXPECT_NO_THROW(access.CheckOrigin(
      WithHeaders({{"host", "localhost:8080"}, {"origin", "http://localhost:8080"}})));
  EXPECT_NO_THROW(access.CheckOrigin(WithHeaders({{"host", "[::1]:8080"}})));
  EXPECT_NO_THROW(access.CheckOrigin({}));
  for (const char* origin : {"http://evil.example", "null", "http://localhost:9999"}) {
    auto check = [&] {
      access.CheckOrigin(WithHeaders({{"host", "localhost:8080"}, {"origin", origin}}));
    };
    EXPECT_EQ(ErrorOf(check).status(), 403) << origin;
  }
  for (const char* host : {"evil.example:8080", "127.evil.example", "localhost.evil.example"}) {
    auto check = [&] { access.CheckOrigin(WithHeaders({{"host", host}})); };
    EXPECT_EQ(ErrorOf(check).status(), 403) << host;
  }
}

TEST(AccessTest, LetsListedOriginsRead) {
  Access access({.cors_origins = "https://a.example, https://b.example/"});
  HttpRequest b = WithHeaders({{"host", "localhost"}, {"origin", "https://b.example"}});
  EXPECT_NO_THROW(access.CheckOrigin(b));
  EXPECT_EQ(access.CorsHeaders(b).front().second, "https://b.example");
  EXPECT_TRUE(access.CorsHeaders(WithHeaders({{"origin", "https://c.example"}})).empty());
  Access any({.cors_origins = "*"});
  EXPECT_TRUE(any.CorsHeaders(WithHeaders({{"origin", "x\r\nSet-Cookie: y"}})).empty());
}

TEST(FramingTest, RefusesAmbiguousAndOversizedBodies) {
  EXPECT_EQ(FramingStatus({}, 100), 0);
  EXPECT_EQ(FramingStatus({.wants_body = true}, 100), 411);
  EXPECT_EQ(FramingStatus({.transfer_encoding = true, .wants_body = true}, 100), 0);
  EXPECT_EQ(FramingStatus({.content_lengths = {"100"}}, 100), 0);
  EXPECT_EQ(FramingStatus({.content_lengths = {"101"}}, 100), 413);
  EXPECT_EQ(FramingStatus({.content_lengths = {"99999999999999999999999"}}, 100), 413);
  for (const char* bad : {"-1", "+1", "0x10", "", " 1", "1 ", "1,1"}) {
    EXPECT_EQ(FramingStatus({.content_lengths = {bad}}, 100), 400) << bad;
  }
  EXPECT_EQ(FramingStatus({.content_lengths = {"1", "1"}}, 100), 400);
  EXPECT_EQ(FramingStatus({.content_lengths = {"1"}, .transfer_encoding = true}, 100), 400);
  EXPECT_EQ(FramingStatus({.content_type = "Multipart/form-data"}, 100), 415);
}

}  // namespace
}  // namespace tandem
