// The server as a whole: other routes, access, many streams, clients that leave, shutting down.
#include <gmock/gmock.h>

#include <atomic>
#include <set>
#include <sstream>
#include <thread>

#include "engine/base/error.h"
#include "engine/serve/http.h"
#include "tests/serve/server_fixture.h"

namespace tandem::testing {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::HasSubstr;

const char kStreamRequest[] = R"({"prompt":"abc","max_tokens":100,"stream":true})";

TEST_F(ServerTest, AnswersItsRoutes) {
  StartServer();
  EXPECT_EQ(Get("/health").body, R"({"status":"ok"})");
  EXPECT_EQ(Parse(Get("/v1/models"))["data"][0]["id"], "fake");
  EXPECT_EQ(Parse(Get("/models"))["object"], "list");
  EXPECT_EQ(Parse(Get("/v1/models/fake"))["id"], "fake");
  ExpectError(Get("/v1/models/other"), 404, "model");
  json props = Parse(Get("/props"));
  EXPECT_EQ(props["rig"]["name"], "fake-rig");
  EXPECT_EQ(props["plugin"]["name"], "fake");
  EXPECT_EQ(props["plan_hash"], "0123456789abcdef0123456789abcdef");
  EXPECT_EQ(props["paths"], json({"d0-d1 local"}));
  EXPECT_EQ(props["fidelity"], "emulated");
  EXPECT_EQ(props["memory"].size(), 3u);
  EXPECT_EQ(props["memory"][2]["device"], "host");
  EXPECT_EQ(props["slot_context"], 256);
  const std::string description = Get("/openapi.yaml").body;
  EXPECT_THAT(description, HasSubstr("/v1/chat/completions:"));
  for (const char* field :
       {"best_of", "response_format", "modalities", "max_completion_tokens", "min_tokens",
        "ignore_eos", "repetition_penalty", "repeat_penalty", "logit_bias", "top_logprobs", "echo",
        "stream_options", "return_token_ids"}) {
    EXPECT_THAT(description, HasSubstr(std::string(" ") + field + ":"));
  }
  RawResponse page = Get("/");
  EXPECT_THAT(page.headers["content-type"], HasSubstr("text/html"));
  EXPECT_THAT(page.headers["content-security-policy"], HasSubstr("script-src 'sha256-"));
  EXPECT_TRUE(page.complete);
}

TEST_F(ServerTest, TokenizesBothWays) {
  StartServer();
  EXPECT_EQ(Parse(Post("/tokenize", {{"content", "a<|end|>"}}))["tokens"], json({97, 256}));
  json pieces = Parse(Post("/tokenize", {{"content", "\xC3\xA9"}, {"with_pieces", true}}));
  EXPECT_EQ(pieces["tokens"][0]["piece"], json({0xC3}));
  EXPECT_EQ(Parse(Post("/detokenize", {{"tokens", {97, 256}}}))["content"], "a<|end|>");
  EXPECT_EQ(Parse(Post("/detokenize", {{"tokens", {0xC3}}}))["content"], "\xEF\xBF\xBD");
  ExpectError(Post("/detokenize", {{"tokens", {258}}}), 400, "tokens");
  ExpectError(Post("/tokenize", json::object()), 400, "content");
  EXPECT_EQ(Parse(Post("/apply-template",
                       {{"messages", {{{"role", "user"}, {"content", "x"}}}}}))["prompt"],
            "<|start|>user:x<|end|><|start|>");
}

TEST_F(ServerTest, SaysWhatIsWrongWithARoute) {
  StartServer();
  ExpectError(Get("/nowhere"), 404);
  ExpectError(Post("/v1/embeddings", json::object()), 404);
  RawResponse wrong = Get("/v1/completions");
  ExpectError(wrong, 405);
  EXPECT_EQ(wrong.headers["allow"], "POST");
  ExpectError(Post("/health", json::object()), 405);
  ExpectError(Send(port(), "DELETE", "/v1/models"), 405);
  ExpectError(Send(port(), "PUT", "/nowhere", ""), 404);
  EXPECT_EQ(Send(port(), "HEAD", "/health").status, 200);
  EXPECT_EQ(Send(port(), "OPTIONS", "/v1/completions").status, 204);
}

TEST_F(ServerTest, GuardsAllButHealthAndThePage) {
  StartServer({.api_keys = {"secret"}});
  EXPECT_EQ(Get("/health").status, 200);
  EXPECT_EQ(Get("/").status, 200);
  for (const char* path : {"/v1/models", "/props", "/metrics", "/metrics.json", "/openapi.yaml",
                           "/nowhere", "/v1/models/fake"}) {
    ExpectError(Get(path), 401);
  }
  for (const char* path :
       {"/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/apply-template"}) {
    ExpectError(Post(path, {{"prompt", "x"}}), 401);
    EXPECT_NE(Post(path, {{"prompt", "x"}}, "Authorization: Bearer secret\r\n").status, 401);
  }
}

TEST_F(ServerTest, MetricsAreWellFormedAndCount) {
  StartServer();
  Post("/v1/completions", {{"prompt", "abc"}, {"max_tokens", 5}});
  Get("/nowhere");
  std::string text = Get("/metrics").body;
  EXPECT_THAT(text, HasSubstr("tandem_generated_tokens_total 5\n"));
  EXPECT_THAT(text, HasSubstr("tandem_steps_total{phase=\"decode\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("tandem_link_bytes_total{src=\"d0\",dst=\"d1\",path=\"local\",op=\""
                              "all_reduce\",phase=\"decode\"} 256\n"));
  EXPECT_THAT(text, HasSubstr("tandem_link_busy_seconds_total{phase=\"decode\"} 0.001\n"));
  EXPECT_THAT(
      text, HasSubstr("tandem_device_busy_seconds_total{device=\"d1\",phase=\"decode\"} 0.0032\n"));
  EXPECT_THAT(text,
              HasSubstr("tandem_http_requests_total{route=\"/completions\",status=\"200\"} 1"));
  EXPECT_THAT(text, HasSubstr("tandem_http_requests_total{route=\"other\",status=\"404\"} 1"));
  EXPECT_THAT(text, HasSubstr("tandem_time_to_first_token_seconds_count 1\n"));
  EXPECT_THAT(text, HasSubstr("tandem_inter_token_seconds_count 4\n"));
  EXPECT_THAT(text, HasSubstr("fidelity=\"emulated\""));
  // HELP and TYPE once a family, before its samples, and every sample of a known family.
  std::set<std::string> families;
  std::string family;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("# HELP ", 0) == 0) {
      family = line.substr(7, line.find(' ', 7) - 7);
      EXPECT_TRUE(families.insert(family).second) << family << " twice";
      EXPECT_EQ(family.rfind("tandem_", 0), 0u) << family;
    } else if (line[0] != '#') {
      EXPECT_EQ(line.rfind(family, 0), 0u) << line << " outside its family";
    }
  }
  json live = Parse(Get("/metrics.json"));
  EXPECT_EQ(live["generated_tokens"], 5);
  EXPECT_EQ(live["decode"]["devices"][1]["device"], "d1");
  EXPECT_EQ(live["decode"]["links"].size(), 2u);
}

TEST_F(ServerTest, ThirtyTwoStreamsFinishAndHealthStaysQuick) {
  engine_ = std::make_unique<FakeEngine>();
  engine_->step_us = 2000;
  StartServer();
  std::atomic<int> complete{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 32; ++i) {
    clients.emplace_back([&] {
      RawResponse r = Send(port(), "POST", "/v1/completions", kStreamRequest);
      std::vector<std::string> events = Events(r.body);
      complete +=
          r.status == 200 && r.complete && events.size() == 102 && events.back() == "[DONE]";
    });
  }
  EXPECT_TRUE(engine_->WaitForOpen(32));
  auto before = steady_clock::now();
  EXPECT_EQ(Get("/health").status, 200);
  EXPECT_LT(steady_clock::now() - before, milliseconds(2000));
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(complete, 32);
  EXPECT_EQ(engine_->counters().running, 0u);
}

TEST_F(ServerTest, AClientThatLeavesIsCancelledWhateverItWaitsFor) {
  engine_ = std::make_unique<FakeEngine>(4096, /*slots=*/2, /*max_queue=*/8);
  engine_->step_us = 5000;
  StartServer();
  {
    std::string whole = R"({"prompt":"abc","max_tokens":4000})";
    std::string stream = R"({"prompt":"abc","max_tokens":4000,"stream":true})";
    RawConnection a(port()), b(port()), queued(port()), queued_stream(port());
    a.Send(RequestText("POST", "/v1/completions", stream));
    b.Send(RequestText("POST", "/v1/completions", whole));
    ASSERT_TRUE(engine_->WaitForOpen(2));
    queued.Send(RequestText("POST", "/v1/completions", whole));
    queued_stream.Send(RequestText("POST", "/v1/completions", stream));
    ASSERT_TRUE(engine_->WaitForOpen(4));
    a.ReadUntil("data:");
  }
  EXPECT_TRUE(engine_->WaitForCancelled(4, std::chrono::seconds(5)));
  EXPECT_TRUE(engine_->WaitForOpen(0));
  EXPECT_EQ(Get("/health").status, 200);
}

TEST_F(ServerTest, AClientThatDoesNotReadIsGivenUp) {
  engine_ = std::make_unique<FakeEngine>(100000);
  StartServer({.write_timeout_s = 0.3});
  RawConnection connection(port());
  connection.Send(RequestText("POST", "/v1/completions",
                              R"({"prompt":"abc","max_tokens":99000,"stream":true})"));
  auto until = steady_clock::now() + std::chrono::seconds(20);
  std::string metrics;
  while (metrics.find("tandem_http_disconnects_total 1\n") == std::string::npos) {
    ASSERT_LT(steady_clock::now(), until);
    std::this_thread::sleep_for(milliseconds(50));
    metrics = Get("/metrics").body;
  }
}

TEST_F(ServerTest, PingsASilentStream) {
  engine_ = std::make_unique<FakeEngine>();
  engine_->step_us = 600000;
  StartServer({.ping_interval_s = 0.1});
  RawConnection connection(port());
  connection.Send(RequestText("POST", "/v1/completions", kStreamRequest));
  EXPECT_NE(connection.ReadUntil(": ping\n\n"), "");
}

TEST_F(ServerTest, DrainsWhatIsInFlightAndRefusesTheRest) {
  engine_ = std::make_unique<FakeEngine>();
  engine_->step_us = 5000;
  StartServer();
  std::thread client([&] {
    RawResponse r = Send(port(), "POST", "/v1/completions", kStreamRequest);
    EXPECT_TRUE(r.complete);
    EXPECT_EQ(Events(r.body).size(), 102u);
  });
  ASSERT_TRUE(engine_->WaitForOpen(1));
  server_->RequestShutdown();
  ExpectError(Get("/health"), 503);
  ExpectError(Post("/v1/completions", {{"prompt", "x"}}), 503);
  EXPECT_EQ(Get("/metrics").status, 200);
  server_->Wait();
  client.join();
  EXPECT_FALSE(RawConnection(port()).connected());
}

TEST_F(ServerTest, EndsWhatDoesNotFinishInTimeWithAnErrorFrame) {
  engine_ = std::make_unique<FakeEngine>(4096);
  engine_->step_us = 20000;
  StartServer({.shutdown_timeout_s = 0.2});
  std::atomic<int> whole_status{0};
  std::string body;
  std::thread stream([&] {
    body = Send(port(), "POST", "/v1/completions",
                R"({"prompt":"abc","max_tokens":4000,"stream":true})")
               .body;
  });
  std::thread whole([&] {
    whole_status =
        Send(port(), "POST", "/v1/completions", R"({"prompt":"abc","max_tokens":4000})").status;
  });
  ASSERT_TRUE(engine_->WaitForOpen(2));
  auto before = steady_clock::now();
  server_->RequestShutdown();
  server_->Wait();
  EXPECT_LT(steady_clock::now() - before, std::chrono::seconds(5));
  stream.join();
  whole.join();
  std::vector<std::string> events = Events(body);
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_THAT(events[events.size() - 2], HasSubstr("shut down"));
  EXPECT_EQ(whole_status, 503);
}

TEST_F(ServerTest, ASecondRequestToShutDownDoesNotWait) {
  engine_ = std::make_unique<FakeEngine>(4096);
  engine_->step_us = 20000;
  StartServer({.shutdown_timeout_s = 600});
  RawConnection connection(port());
  connection.Send(RequestText("POST", "/v1/completions",
                              R"({"prompt":"abc","max_tokens":4000,"stream":true})"));
  ASSERT_TRUE(engine_->WaitForOpen(1));
  server_->RequestShutdown();
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(engine_->counters().running, 1u) << "the first one waits";
  auto before = steady_clock::now();
  server_->RequestShutdown();
  server_->Wait();
  EXPECT_LT(steady_clock::now() - before, std::chrono::seconds(5));
}

TEST_F(ServerTest, APortInUseIsAnError) {
  StartServer();
  FakeEngine other_engine;
  Server other(other_engine, {.port = port()});
  try {
    other.Start();
    ADD_FAILURE() << "two servers on one port";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kPortInUse);
    EXPECT_THAT(error.what(), HasSubstr("--port"));
  }
}

TEST_F(ServerTest, ListensOnlyWhereItMay) {
  auto code_of = [](ServerOptions options) {
    FakeEngine engine;
    options.port = 0;
    Server server(engine, options);
    try {
      server.Start();
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kFailure;
  };
  EXPECT_EQ(code_of({.host = "no.such.host.invalid", .allow_insecure_bind = true}),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of({.host = "192.0.2.1", .allow_insecure_bind = true}),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of({.host = "localhost"}), ErrorCode::kFailure) << "it listens";
  EXPECT_EQ(code_of({.host = "0.0.0.0", .allow_insecure_bind = true}), ErrorCode::kFailure);
}

TEST_F(ServerTest, BeyondTheConnectionCapHealthStillAnswers) {
  engine_ = std::make_unique<FakeEngine>();
  engine_->step_us = 20000;
  StartServer({.max_connections = 2});
  RawConnection a(port()), b(port());
  a.Send(RequestText("POST", "/v1/completions", kStreamRequest));
  b.Send(RequestText("POST", "/v1/completions", kStreamRequest));
  ASSERT_TRUE(engine_->WaitForOpen(2));
  EXPECT_EQ(Get("/health").status, 200);
  RawResponse refused = Post("/v1/completions", {{"prompt", "x"}});
  ExpectError(refused, 503);
  EXPECT_EQ(refused.headers["retry-after"], "1");
}

}  // namespace
}  // namespace tandem::testing
