// A server over a FakeEngine on a free port of the loopback.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/serve/server.h"
#include "tests/serve/fake_engine.h"
#include "tests/serve/raw_client.h"

namespace tandem::testing {

class ServerTest : public ::testing::Test {
 protected:
  void StartServer(ServerOptions options = {}) {
    if (engine_ == nullptr) engine_ = std::make_unique<FakeEngine>();
    options.port = 0;
    server_ = std::make_unique<Server>(*engine_, options);
    server_->Start();
  }

  int port() const { return server_->port(); }
  RawResponse Get(const std::string& path) { return Send(port(), "GET", path); }
  RawResponse Post(const std::string& path, const nlohmann::json& body,
                   const std::string& headers = "") {
    return Send(port(), "POST", path, body.dump(), headers);
  }
  static nlohmann::json Parse(const RawResponse& response) {
    return nlohmann::json::parse(response.body, nullptr, false);
  }
  // Every error has the protocol's four keys.
  static void ExpectError(const RawResponse& response, int status, const std::string& param = "") {
    EXPECT_EQ(response.status, status) << response.body;
    nlohmann::json body = Parse(response);
    ASSERT_TRUE(body.is_object() && body.contains("error")) << response.body;
    for (const char* key : {"message", "type", "param", "code"}) {
      EXPECT_TRUE(body["error"].contains(key)) << key;
    }
    if (!param.empty()) {
      EXPECT_EQ(body["error"]["param"], param) << response.body;
    }
  }

  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<Server> server_;  // goes before the engine
};

}  // namespace tandem::testing
