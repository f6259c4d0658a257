// Requests that no honest client sends. Each must be answered or dropped within bounds, and the
// server must answer the next one.
#include <gmock/gmock.h>

#include <fstream>

#include "tests/serve/server_fixture.h"

namespace tandem::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

size_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  size_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * 4096;
}

class HostileTest : public ServerTest {
 protected:
  void SetUp() override { StartServer({.read_timeout_s = 1.0, .max_body_bytes = 1 << 20}); }
  void TearDown() override { EXPECT_EQ(Get("/health").status, 200); }

  RawResponse Exchange(const std::string& bytes) {
    RawConnection connection(port());
    connection.Send(bytes);
    RawResponse response = ParseResponse(connection.ReadAll());
    EXPECT_FALSE(connection.timed_out()) << "no end in sight after " << bytes.substr(0, 60);
    return response;
  }
  RawResponse PostRaw(const std::string& body) {
    return Send(port(), "POST", "/v1/completions", body);
  }
};

TEST_F(HostileTest, GarbageGetsAJsonErrorOrAClosedDoor) {
  for (const char* text :
       {"\r\n\r\n", "GARBAGE\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "FOO / HTTP/1.1\r\n\r\n", "TRACE / HTTP/1.1\r\n\r\n",
        "CONNECT x:1 HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x01\x01\xfc\x03\x03\r\n\r\n"}) {
    RawResponse response = Exchange(text);
    if (response.status != 0) {
      EXPECT_GE(response.status, 400) << text;
      ExpectError(response, response.status);
    }
  }
}

TEST_F(HostileTest, BadFramingIsRefused) {
  const std::string head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\n";
  const std::string local = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n";
  ExpectError(Exchange(local + "Content-Length: -1\r\n\r\n"), 400);
  ExpectError(Exchange(local + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), 400);
  ExpectError(Exchange(local + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
              400);
  ExpectError(Exchange(local + "\r\n"), 411);  // at once: no body is on its way
  ExpectError(Exchange(local + "Content-Length: 99999999999999999999\r\n\r\n"), 413);
  ExpectError(Exchange(local + "Content-Length: 104857600\r\n\r\n"), 413);
  ExpectError(Exchange(local + "Content-Type: multipart/form-data; boundary=x\r\n"
                               "Content-Length: 2\r\n\r\n{}"),
              415);
  ExpectError(Exchange(local + "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"), 400);
  ExpectError(Exchange(local + "Expect: 100-continue\r\nContent-Length: 104857600\r\n\r\n"), 413);
  ExpectError(Exchange(head + "Content-Length: 2\r\n\r\n{}"), 403);
  // A length beyond what comes: the peer says no more, or says nothing.
  RawConnection half(port());
  half.Send(local + "Content-Length: 50\r\n\r\n{");
  half.ShutdownWrite();
  EXPECT_NE(ParseResponse(half.ReadAll()).status, 200);
}

TEST_F(HostileTest, ChunkedBodiesWork) {
  RawResponse response = Exchange(
      "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
      "8\r\n{\"prompt\r\n8\r\n\":\"abc\"}\r\n0\r\n\r\n");
  EXPECT_EQ(response.status, 200) << response.body;
}

TEST_F(HostileTest, FloodsAreCutOff) {
  size_t before = ResidentBytes();
  const std::string local = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n";
  struct Flood {
    const char* name;
    std::string head, block;
    int status;
  };
  std::string chunk = "10000\r\n" + std::string(0x10000, 'x') + "\r\n";
  std::string headers;
  for (int i = 0; i < 1000; ++i) headers += "X-A: b\r\n";
  const Flood floods[] = {
      {"an endless request line", "GET /", std::string(65536, 'A'), 431},
      {"an endless header", "GET / HTTP/1.1\r\nX: ", std::string(65536, 'A'), 431},
      {"endless headers", "GET / HTTP/1.1\r\n", headers, 431},
      {"an endless chunked body", local + "Transfer-Encoding: chunked\r\n\r\n", chunk, 413},
      {"an endless chunk size", local + "Transfer-Encoding: chunked\r\n\r\n",
       std::string(65536, '1'), 413},
      {"a long body", local + "Content-Length: 104857600\r\n\r\n", std::string(65536, 'x'), 413},
  };
  for (const Flood& flood : floods) {
    RawConnection connection(port());
    connection.Send(flood.head);
    size_t sent = 0;
    while (sent < (size_t{40} << 20) && connection.Send(flood.block)) sent += flood.block.size();
    RawResponse response = ParseResponse(connection.ReadAll());
    // A peer that goes on sending may lose the answer to a reset; honest ones read it.
    // Newer versions of the HTTP library count for themselves, and say 400 before our limits speak.
    if (response.status != 0 && response.status != 400) {
      EXPECT_EQ(response.status, flood.status) << flood.name;
    }
    EXPECT_EQ(Get("/health").status, 200) << flood.name;
  }
  EXPECT_LT(ResidentBytes(), before + (size_t{48} << 20));
}

TEST_F(HostileTest, AHonestUploadThatIsTooLargeReadsIts413) {
  RawResponse response = PostRaw(std::string(3 << 20, 'x'));
  ExpectError(response, 413);
}

TEST_F(HostileTest, SlowClientsAreDroppedInTime) {
  auto before = steady_clock::now();
  RawConnection idle(port()), slow_header(port()), slow_body(port());
  slow_header.Send("GET /health HTTP/1.1\r\nX-Slow: ");
  slow_body.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{");
  // One byte at a time does not buy more time.
  for (int i = 0; i < 8; ++i) {
    std::this_thread::sleep_for(milliseconds(200));
    slow_header.Send("x");
  }
  ExpectError(ParseResponse(slow_header.ReadAll()), 408);
  ExpectError(ParseResponse(slow_body.ReadAll()), 408);
  EXPECT_EQ(idle.ReadAll(), "");
  EXPECT_LT(steady_clock::now() - before, std::chrono::seconds(10));
}

TEST_F(HostileTest, ManyIdleConnectionsDoNotHoldUpAnyone) {
  std::vector<std::unique_ptr<RawConnection>> idle;
  for (int i = 0; i < 300; ++i) idle.push_back(std::make_unique<RawConnection>(port()));
  auto before = steady_clock::now();
  EXPECT_EQ(Get("/health").status, 200);
  EXPECT_LT(steady_clock::now() - before, std::chrono::seconds(3));
}

TEST_F(HostileTest, HostileJsonIs400) {
  std::string deep_array = "{\"prompt\":" + std::string(500'000, '[');
  std::string deep_object;
  for (int i = 0; i < 100'000; ++i) deep_object += "{\"a\":";
  std::string stops = "{\"prompt\":\"x\",\"stop\":[\"a\"";
  for (int i = 0; i < 10'000; ++i) stops += ",\"a\"";
  stops += "]}";
  for (const std::string& body :
       {deep_array, deep_object, stops, std::string(), std::string("\0", 1),
        std::string("{\"prompt\":\"a\0b\"}", 16), std::string("{\"prompt\":\"\xff\"}"),
        std::string("{\"prompt\":\"\\ud800\"}"), std::string("{\"prompt\":1e999}"),
        std::string("{\"prompt\":[99999999999999999999]}"), std::string("{\"prompt\":[-1]}"),
        std::string("{\"prompt\":[258]}"), std::string("{\"prompt\":\"x\",\"n\":1000000000}"),
        std::string("{\"prompt\":\"x\",\"prompt\":\"y\"}"), std::string("[[[[[[[[[[")}) {
    ExpectError(PostRaw(body), 400);
  }
}

TEST_F(HostileTest, OddButValidJsonWorks) {
  for (const std::string& body :
       {std::string("\xef\xbb\xbf{\"prompt\":\"x\"}"), std::string("{\"prompt\":\"a\\u0000b\"}"),
        std::string(" \n\t{\"prompt\":\"\\ud83d\\ude00\"}\n"),
        std::string("{\"prompt\":\"x\",\"temperature\":1e-30}")}) {
    EXPECT_EQ(PostRaw(body).status, 200) << body;
  }
}

TEST_F(HostileTest, HeadersDoNotReachWhereTheyShouldNot) {
  // Ranges and compression would apply to streams; an injected line end must not come back.
  RawResponse response =
      Send(port(), "GET", "/health", "",
           "Range: bytes=0-1,0-1,0-1\r\nAccept-Encoding: gzip\r\n"
           "Origin: http://127.0.0.1%0d%0aX-Evil: 1\r\nREMOTE_ADDR: 1.2.3.4\r\n");
  EXPECT_EQ(response.headers.count("x-evil"), 0u);
  EXPECT_EQ(response.headers.count("content-encoding"), 0u);
  RawResponse ranged = Send(port(), "GET", "/health", "", "Range: bytes=0-1\r\n");
  EXPECT_EQ(ranged.status, 200);
  EXPECT_EQ(ranged.body, R"({"status":"ok"})");
}

TEST_F(HostileTest, PipelinedAndHttp10RequestsGetOneAnswerAndAClose) {
  std::string two = RequestText("GET", "/health", "") + RequestText("GET", "/health", "");
  RawConnection connection(port());
  connection.Send(two);
  std::string text = connection.ReadAll();
  EXPECT_EQ(ParseResponse(text).status, 200);
  EXPECT_EQ(text.find("HTTP/1.1", 1), std::string::npos);
  RawConnection old(port());
  std::string body = R"({"prompt":"abc","max_tokens":3,"stream":true})";
  old.Send("POST /v1/completions HTTP/1.0\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + body);
  RawResponse stream = ParseResponse(old.ReadAll());
  EXPECT_EQ(stream.headers.count("transfer-encoding"), 0u) << "HTTP/1.0 has no chunks";
  EXPECT_EQ(Events(stream.body).back(), "[DONE]");
}

TEST_F(HostileTest, ResetsInMidStreamLeaveNothingRunning) {
  engine_->step_us = 2000;
  for (int i = 0; i < 20; ++i) {
    RawConnection connection(port());
    connection.Send(RequestText("POST", "/v1/completions",
                                R"({"prompt":"abc","max_tokens":200,"stream":true})"));
    connection.ReadUntil("data:");
  }
  EXPECT_TRUE(engine_->WaitForOpen(0));
}

}  // namespace
}  // namespace tandem::testing
