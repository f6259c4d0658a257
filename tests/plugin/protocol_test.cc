// What the engine and the helper write to each other reads back to the same.
#include "engine/plugin/protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/plan/text.h"
#include "tests/plugin/test_problem.h"

namespace tandem {
namespace {

TEST(ProtocolTest, ARequestReadsBackToTheSameProblem) {
  TestProblem test({.kv_heads = 8, .devices = 3, .tied = true, .memory = Bytes{123456789}});
  test.rig.devices[1].memory_bytes_per_s = 1.0 / 3;
  test.rig.link.all_reduce = test.rig.link.send;
  test.rig.link.send_replayed.points = {{Bytes{1}, Nanos{10}}, {Bytes{2}, Nanos{20}}};
  test.rig.link.all_reduce_replayed.points = {{Bytes{1}, Nanos{11}}, {Bytes{2}, Nanos{22}}};
  PlanRequest request;
  request.plugin_path = "/a/b \"c\".so";
  request.plan = true;
  request.knobs = {{"k", "v\nw"}};
  test.graph.blocks[1].head_norm_bytes = Bytes{96};
  test.graph.config.sliding_window = 17;
  request.graph = test.graph;
  request.rig = test.rig;
  request.limits = {7, 8, 9};
  request.wire = WireType::kQ8;
  request.path = PathKind::kHostStaged;
  request.tensor_split = {0.1, 2, 3};

  const std::string text = FormatRequest(request);
  const PlanRequest back = ParseRequest(text);
  EXPECT_EQ(FormatRequest(back), text);
  EXPECT_EQ(back.plugin_path, request.plugin_path);
  EXPECT_EQ(back.knobs, request.knobs);
  EXPECT_EQ(back.rig.Fingerprint(), test.rig.Fingerprint());
  EXPECT_EQ(back.rig.devices[1].memory_bytes_per_s, 1.0 / 3);
  EXPECT_EQ(back.limits.context, 9u);
  EXPECT_EQ(back.wire, WireType::kQ8);
  EXPECT_EQ(back.path, PathKind::kHostStaged);
  EXPECT_EQ(back.tensor_split, request.tensor_split);
  ASSERT_EQ(back.graph.size(), test.graph.size());
  EXPECT_TRUE(back.graph.tied);
  EXPECT_EQ(back.graph.config.n_kv_heads, 8u);
  EXPECT_EQ(back.graph.config.sliding_window, 17u);
  for (uint32_t b = 0; b < test.graph.size(); ++b) {
    const Block& is = back.graph.blocks[b];
    const Block& was = test.graph.blocks[b];
    EXPECT_EQ(is.kind, was.kind);
    EXPECT_EQ(is.units, was.units);
    EXPECT_EQ(is.sums, was.sums);
    EXPECT_EQ(is.UnitBytes(is.AllUnits()), was.UnitBytes(was.AllUnits()));
    EXPECT_EQ(is.KvBytesPerToken(is.AllUnits()), was.KvBytesPerToken(was.AllUnits()));
    EXPECT_EQ(is.norm_bytes, was.norm_bytes);
    EXPECT_EQ(is.head_norm_bytes, was.head_norm_bytes);
    EXPECT_EQ(is.params_per_elem, was.params_per_elem);
  }
}

TEST(ProtocolTest, RefusesAnUnreadableRequest) {
  EXPECT_THROW(ParseRequest(""), Error);
  EXPECT_THROW(ParseRequest("{\"protocol\":2}"), Error);
  EXPECT_THROW(ParseRequest("{\"protocol\":1,\"plugin\":3}"), Error);
}

TEST(ProtocolTest, AReplyCutShortKeepsWhatCame) {
  const std::string text = StageLine("plan") + DiagLine(2, "careful\n\xff") + "{\"diag\":\"lo";
  const PlanReply reply = ParseReply(text);
  EXPECT_EQ(reply.stage, "plan");
  ASSERT_EQ(reply.diagnostics.size(), 1u);
  EXPECT_THAT(reply.diagnostics[0], testing::StartsWith("warning: careful\n"));
  EXPECT_FALSE(reply.done);
  EXPECT_EQ(reply.garbage, "");
}

TEST(ProtocolTest, AReplyWithForeignBytesSaysSo) {
  EXPECT_NE(ParseReply("scribble\n" + DoneLine()).garbage, "");
  EXPECT_NE(ParseReply("{\"unknown\":1}\n").garbage, "");
  EXPECT_NE(ParseReply("{\"info\":{}}\n").garbage, "");
}

TEST(ProtocolTest, AnErrorKeepsItsCode) {
  const PlanReply reply =
      ParseReply(ErrorLine(Error(ErrorCode::kInvalidArgument, "no")) + DoneLine());
  EXPECT_TRUE(reply.has_error);
  EXPECT_TRUE(reply.done);
  EXPECT_EQ(reply.error_code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(reply.error, "no");
}

}  // namespace
}  // namespace tandem
