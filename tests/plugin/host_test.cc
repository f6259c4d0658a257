// The host's callbacks: form is checked call by call, everything is copied, refusals name the call.
#include "engine/plugin/host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/plan/text.h"
#include "tests/plugin/test_problem.h"

namespace tandem {
namespace {

using testing::HasSubstr;

template <typename T>
T Sized() {
  T t{};
  t.struct_size = sizeof(T);
  return t;
}

// A host over the default problem, called directly as a plugin would.
class HostTest : public testing::Test {
 protected:
  HostTest()
      : info_{.name = "tested", .version = "1"},
        host_(test_.problem, info_, {{"depth", "3"}},
              [this](int32_t level, const std::string& text) {
                said_.push_back(std::to_string(level) + " " + text);
              }) {}

  const tandem_host& abi() { return *host_.abi(); }

  tandem_status OpenPrefill() {
    auto program = Sized<tandem_program>();
    program.kind = TANDEM_PROGRAM_PREFILL;
    program.microbatches = 1;
    return abi().program(abi().ctx, &program);
  }

  // EMBED's RUN over all units on device 0, and the id it gives.
  tandem_op EmbedOp(tandem_value* out) {
    auto op = Sized<tandem_op>();
    op.kind = TANDEM_OP_RUN;
    op.unit_end = 5;
    op.devices = &device0_;
    op.n_devices = 1;
    op.out = out;
    op.n_out = 1;
    return op;
  }

  tandem_op NormOp(const tandem_value* in, tandem_value* out) {
    tandem_op op = EmbedOp(out);
    op.kind = TANDEM_OP_NORM;
    op.unit_end = 0;
    op.block = 1;
    op.in = in;
    op.n_in = 1;
    return op;
  }

  tandem_status Emit(const tandem_op& op) { return abi().op(abi().ctx, &op); }

  // What Run() says after a plan() that returned OK.
  std::string Complaint() {
    auto plugin = Sized<tandem_plugin>();
    plugin.plan = [](const tandem_problem*, const tandem_host*) {
      return tandem_status{TANDEM_OK};
    };
    try {
      host_.Run(plugin);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kPlugin);
      return error.what();
    }
    return "";
  }

  TestProblem test_;
  PluginInfo info_;
  std::vector<std::string> said_;
  PluginHost host_;
  tandem_device_id device0_ = 0;
};

TEST_F(HostTest, ShowsTheProblemInTheAbisTerms) {
  const tandem_problem& problem = *host_.problem();
  ASSERT_EQ(problem.struct_size, sizeof(tandem_problem));
  EXPECT_EQ(problem.n_devices, 2u);
  EXPECT_EQ(problem.n_blocks, 6u);
  EXPECT_EQ(problem.n_layers, 2u);
  EXPECT_EQ(problem.n_links, 6u);  // two between the devices, two with the host for each
  EXPECT_EQ(problem.wire_row_bytes, 4u * 32);
  EXPECT_EQ(problem.shares_given, 0u);
  const tandem_block& attention = *problem.blocks[1];
  EXPECT_EQ(attention.kind, uint32_t{TANDEM_BLOCK_ATTENTION});
  EXPECT_EQ(attention.units, 3u);
  EXPECT_EQ(attention.elems, 3u);
  EXPECT_EQ(attention.bytes_per_elem, test_.graph.blocks[1].bytes_per_elem.value);
  EXPECT_EQ(attention.kv_bytes_per_elem_token, 2u * 2 * 16);
  EXPECT_EQ(problem.blocks[5]->kind, uint32_t{TANDEM_BLOCK_HEAD});
  EXPECT_EQ(problem.blocks[5]->sums, 0u);
  EXPECT_EQ(std::string(problem.devices[1]->name), "card 1");
  EXPECT_DOUBLE_EQ(problem.devices[1]->share, 1.0);
  const tandem_link& link = *problem.links[0];
  EXPECT_EQ(link.src, 0);
  EXPECT_EQ(link.dst, 1);
  EXPECT_DOUBLE_EQ(link.latency_s, 5e-6);
  EXPECT_NEAR(link.bytes_per_s, (1 << 20) / 20e-6, 1.0);
  EXPECT_EQ(link.n_points, 2u);
}

TEST_F(HostTest, GivesDeclaredKnobsAlone) {
  EXPECT_STREQ(abi().knob(abi().ctx, "depth"), "3");
  EXPECT_EQ(abi().knob(abi().ctx, "width"), nullptr);
  EXPECT_EQ(abi().knob(abi().ctx, nullptr), nullptr);
}

TEST_F(HostTest, SaysWhatItSupports) {
  EXPECT_EQ(abi().supports(abi().ctx, "op.fetch"), 1);
  EXPECT_EQ(abi().supports(abi().ctx, "op.all_to_all"), 0);
  EXPECT_EQ(abi().supports(abi().ctx, "wire.q8"), 1);
  EXPECT_EQ(abi().supports(abi().ctx, "wire.fp4"), 0);
  EXPECT_EQ(abi().supports(abi().ctx, "path.auto"), 1);
  EXPECT_EQ(abi().supports(abi().ctx, "path.carrier_pigeon"), 0);
  EXPECT_EQ(abi().supports(abi().ctx, nullptr), 0);
}

TEST_F(HostTest, RecordsTheCallBehindEveryOp) {
  ASSERT_EQ(OpenPrefill(), TANDEM_OK);  // call 1
  tandem_value x = 0;
  tandem_value n = 0;
  ASSERT_EQ(Emit(EmbedOp(&x)), TANDEM_OK);     // call 2
  ASSERT_EQ(Emit(NormOp(&x, &n)), TANDEM_OK);  // call 3
  EXPECT_NE(x, 0u);
  EXPECT_NE(x, n);
  auto plugin = Sized<tandem_plugin>();
  plugin.plan = [](const tandem_problem*, const tandem_host*) { return tandem_status{TANDEM_OK}; };
  const Plan plan = host_.Run(plugin);
  ASSERT_EQ(plan.programs.size(), 1u);
  const std::vector<Op>& ops = plan.programs[0].ops;
  ASSERT_EQ(ops.size(), 2u);
  EXPECT_EQ(ops[0].plugin_call, 2u);
  EXPECT_EQ(ops[1].plugin_call, 3u);
  EXPECT_EQ(ops[1].in, std::vector<ValueId>{0});
  EXPECT_EQ(ops[1].out, std::vector<ValueId>{1});
  EXPECT_EQ(plan.plugin, "tested");
  EXPECT_EQ(plan.knobs, (std::vector<Knob>{{"depth", "3"}}));
}

TEST_F(HostTest, RefusesValuesOfAnotherProgramAndOfADroppedDraft) {
  ASSERT_EQ(OpenPrefill(), TANDEM_OK);
  tandem_value x = 0;
  tandem_value n = 0;
  ASSERT_EQ(Emit(EmbedOp(&x)), TANDEM_OK);
  ASSERT_EQ(OpenPrefill(), TANDEM_OK);
  EXPECT_EQ(Emit(NormOp(&x, &n)), TANDEM_REFUSED);
  EXPECT_THAT(Complaint(), HasSubstr("call 4 (op) was refused: operand 0 is value id"));

  ASSERT_EQ(abi().reset(abi().ctx), TANDEM_OK);
  ASSERT_EQ(OpenPrefill(), TANDEM_OK);
  tandem_value y = 0;
  ASSERT_EQ(Emit(EmbedOp(&y)), TANDEM_OK);
  EXPECT_NE(x, y);
  EXPECT_EQ(Emit(NormOp(&x, &n)), TANDEM_REFUSED);
}

TEST_F(HostTest, ForgetsARefusalOnReset) {
  EXPECT_EQ(abi().place(abi().ctx, nullptr), TANDEM_REFUSED);
  EXPECT_THAT(Complaint(), HasSubstr("tandem_place is null"));
  ASSERT_EQ(abi().reset(abi().ctx), TANDEM_OK);
  EXPECT_EQ(Complaint(), "");
}

TEST_F(HostTest, RefusesAnOpBeforeAnyProgram) {
  tandem_value x = 0;
  EXPECT_EQ(Emit(EmbedOp(&x)), TANDEM_REFUSED);
  EXPECT_THAT(Complaint(), HasSubstr("no program is open"));
}

// One field of an otherwise good op spoiled, and the words the refusal must hold.
struct SpoiledOp {
  const char* what;
  void (*spoil)(tandem_op*);
  const char* words;
};

class SpoiledOpTest : public HostTest, public testing::WithParamInterface<SpoiledOp> {};

TEST_P(SpoiledOpTest, IsRefused) {
  ASSERT_EQ(OpenPrefill(), TANDEM_OK);
  tandem_value x = 0;
  tandem_op op = EmbedOp(&x);
  GetParam().spoil(&op);
  EXPECT_EQ(Emit(op), TANDEM_REFUSED);
  EXPECT_THAT(Complaint(), HasSubstr(GetParam().words));
}

const tandem_device_id kTwoDevices[] = {0, 1};
const tandem_device_id kNowhere[] = {-7};

INSTANTIATE_TEST_SUITE_P(
    Fields, SpoiledOpTest,
    testing::Values(
        SpoiledOp{"size", [](tandem_op* op) { op->struct_size = 8; }, "struct_size 8"},
        SpoiledOp{"kind", [](tandem_op* op) { op->kind = 0; }, "op kind 0"},
        SpoiledOp{"reserved_kind", [](tandem_op* op) { op->kind = TANDEM_OP_ALL_TO_ALL; },
                  "no such op"},
        SpoiledOp{"backwards", [](tandem_op* op) { op->unit_begin = 6; }, "run backwards"},
        SpoiledOp{"slot", [](tandem_op* op) { op->slot = 1; }, "slot = 1 (want 0"},
        SpoiledOp{"path", [](tandem_op* op) { op->path = TANDEM_PATH_P2P; }, "path = 3 (want 0"},
        SpoiledOp{"unknown_path", [](tandem_op* op) { op->path = 60; }, "path 60"},
        SpoiledOp{"algorithm", [](tandem_op* op) { op->algorithm = 1; }, "algorithm = 1 (want 0"},
        SpoiledOp{"queue", [](tandem_op* op) { op->queue = 9; }, "queue 9"},
        SpoiledOp{"reserved", [](tandem_op* op) { op->reserved = 1; }, "reserved = 1"},
        SpoiledOp{"n_in", [](tandem_op* op) { op->n_in = 1; }, "takes 0 values, n_in is 1"},
        SpoiledOp{"n_out", [](tandem_op* op) { op->n_out = 2; }, "gives 1 values"},
        SpoiledOp{"no_out", [](tandem_op* op) { op->out = nullptr; }, "out is null"},
        SpoiledOp{"devices",
                  [](tandem_op* op) {
                    op->devices = kTwoDevices;
                    op->n_devices = 2;
                  },
                  "over 2 devices"},
        SpoiledOp{"no_devices", [](tandem_op* op) { op->devices = nullptr; }, "is null"},
        SpoiledOp{"device", [](tandem_op* op) { op->devices = kNowhere; }, "device -7"}),
    [](const auto& info) { return info.param.what; });

TEST_F(HostTest, CopiesStructsOfALaterVersionWhoseNewFieldsAreZero) {
  struct {
    tandem_place place;
    uint64_t unknown;
  } longer{};
  longer.place = Sized<tandem_place>();
  longer.place.struct_size = sizeof(longer);
  longer.place.unit_end = 1;
  EXPECT_EQ(abi().place(abi().ctx, &longer.place), TANDEM_OK);
  longer.unknown = uint64_t{1} << 40;
  EXPECT_EQ(abi().place(abi().ctx, &longer.place), TANDEM_REFUSED);
  EXPECT_THAT(Complaint(), HasSubstr("sets byte 29, which ABI " + std::to_string(TANDEM_ABI_MAJOR) +
                                     "." + std::to_string(TANDEM_ABI_MINOR) + " does not know"));
}

TEST_F(HostTest, GivesMovementsThePathThatWasAskedFor) {
  test_.problem.path = PathKind::kHostStaged;
  PluginHost host(test_.problem, info_, {}, [](int32_t, const std::string&) {});
  const tandem_host& abi = *host.abi();
  auto program = Sized<tandem_program>();
  program.kind = TANDEM_PROGRAM_PREFILL;
  program.microbatches = 1;
  ASSERT_EQ(abi.program(abi.ctx, &program), TANDEM_OK);
  tandem_value x = 0;
  tandem_op embed = EmbedOp(&x);
  ASSERT_EQ(abi.op(abi.ctx, &embed), TANDEM_OK);
  auto transfer = Sized<tandem_op>();
  transfer.kind = TANDEM_OP_TRANSFER;
  transfer.devices = kTwoDevices;
  transfer.n_devices = 2;
  transfer.in = &x;
  transfer.n_in = 1;
  tandem_value moved = 0;
  transfer.out = &moved;
  transfer.n_out = 1;
  ASSERT_EQ(abi.op(abi.ctx, &transfer), TANDEM_OK);
  transfer.path = TANDEM_PATH_P2P;
  EXPECT_EQ(abi.op(abi.ctx, &transfer), TANDEM_REFUSED);
  EXPECT_EQ(abi.reset(abi.ctx), TANDEM_OK);
}

TEST_F(HostTest, PassesMessagesOnCleanedAndBounded) {
  abi().diag(abi().ctx, TANDEM_DIAG_WARNING, "look \x1b[31mred");
  ASSERT_EQ(said_.size(), 1u);
  EXPECT_EQ(said_[0], "2 look ?[31mred");
  for (int i = 0; i < 1000; ++i) abi().diag(abi().ctx, TANDEM_DIAG_INFO, "again");
  EXPECT_LE(said_.size(), 300u);
  abi().diag(abi().ctx, TANDEM_DIAG_INFO, nullptr);
}

TEST_F(HostTest, ChecksADraftThatIsNoPlan) {
  EXPECT_EQ(abi().check(abi().ctx), TANDEM_REFUSED);
  auto price = Sized<tandem_price>();
  EXPECT_EQ(abi().price(abi().ctx, &price), TANDEM_REFUSED);
  price.struct_size = 4;
  EXPECT_EQ(abi().price(abi().ctx, &price), TANDEM_REFUSED);
}

TEST_F(HostTest, TurnsAStatusIntoTheErrorThatFits) {
  const auto code_of = [&](auto plan) {
    auto plugin = Sized<tandem_plugin>();
    plugin.plan = plan;
    try {
      host_.Run(plugin);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kFailure;
  };
  using P = const tandem_problem*;
  using H = const tandem_host*;
  EXPECT_EQ(code_of([](P, H) -> tandem_status { return TANDEM_INVALID; }),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([](P, H) -> tandem_status { return TANDEM_UNSUPPORTED; }),
            ErrorCode::kUnsupported);
  EXPECT_EQ(code_of([](P, H) -> tandem_status { return TANDEM_NO_FIT; }), ErrorCode::kPlan);
  EXPECT_EQ(code_of([](P, H) -> tandem_status { return TANDEM_ERROR; }), ErrorCode::kPlugin);
  EXPECT_EQ(code_of([](P, H) -> tandem_status { return -1234; }), ErrorCode::kPlugin);
}

// Whatever a plugin writes into its structs, the host takes it or refuses it, and does not fall.
TEST_F(HostTest, SurvivesRandomDrafts) {
  std::mt19937 random(7);
  const auto pick = [&](std::initializer_list<uint32_t> values) {
    return values.begin()[random() % values.size()];
  };
  // Mostly a good value, now and then a wild one.
  const auto mostly = [&](uint32_t good) {
    return random() % 24 != 0 ? good : pick({0, 1, 2, 3, 7, 64, 1u << 31, ~0u});
  };
  struct Counts {
    uint32_t kind, devices, in, out;
  };
  const Counts kinds[] = {{TANDEM_OP_RUN, 1, 1, 1},        {TANDEM_OP_NORM, 1, 1, 1},
                          {TANDEM_OP_ADD, 1, 2, 1},        {TANDEM_OP_SAMPLE, 1, 1, 0},
                          {TANDEM_OP_ALL_REDUCE, 2, 2, 2}, {TANDEM_OP_ALL_GATHER, 2, 2, 2},
                          {TANDEM_OP_TRANSFER, 2, 1, 1},   {TANDEM_OP_FETCH, 2, 0, 0},
                          {TANDEM_OP_KV_MOVE, 2, 0, 0}};
  uint32_t taken = 0;
  uint32_t refused = 0;
  for (int round = 0; round < 500; ++round) {
    ASSERT_EQ(abi().reset(abi().ctx), TANDEM_OK);
    ASSERT_EQ(OpenPrefill(), TANDEM_OK);
    tandem_value known[2] = {0, 0};
    ASSERT_EQ(Emit(EmbedOp(known)), TANDEM_OK);
    known[1] = known[0];
    for (int call = 0; call < 20; ++call) {
      const Counts& counts = kinds[random() % std::size(kinds)];
      const tandem_device_id devices[] = {static_cast<tandem_device_id>(mostly(0)),
                                          static_cast<tandem_device_id>(mostly(1))};
      const tandem_value in[] = {mostly(known[0]), mostly(known[1])};
      tandem_value out[2] = {0, 0};
      auto op = Sized<tandem_op>();
      op.kind = mostly(counts.kind);
      op.microbatch = mostly(0);
      op.block = mostly(counts.kind == TANDEM_OP_RUN ? 1 : 0);
      op.unit_end = mostly(0);
      op.slot = mostly(0);
      op.path = mostly(0);
      op.algorithm = mostly(0);
      op.queue = mostly(0);
      // The host trusts the counts of arrays: they stay within them.
      op.n_devices = std::min(mostly(counts.devices), 2u);
      op.n_in = std::min(mostly(counts.in), 2u);
      op.n_out = std::min(mostly(counts.out), 2u);
      op.devices = devices;
      op.in = in;
      op.out = out;
      (Emit(op) == TANDEM_OK ? taken : refused) += 1;
      if (out[0] != 0) known[random() % 2] = out[0];
    }
    EXPECT_NE(abi().check(abi().ctx), TANDEM_OK);
  }
  EXPECT_GT(taken, 1000u);
  EXPECT_GT(refused, 1000u);
}

// ---- Descriptors and knobs.

class DescriptorTest : public testing::Test {
 protected:
  DescriptorTest() {
    knob_.struct_size = sizeof(knob_);
    knob_.type = TANDEM_KNOB_INT;
    knob_.name = "depth";
    knob_.default_value = "2";
    knob_.help = "How deep.";
    plugin_.struct_size = sizeof(plugin_);
    plugin_.abi_major = TANDEM_ABI_MAJOR;
    plugin_.name = "good";
    plugin_.version = "1.2";
    plugin_.summary = "Good.";
    plugin_.knobs = &knobs_;
    plugin_.n_knobs = 1;
    plugin_.plan = [](const tandem_problem*, const tandem_host*) { return tandem_status{0}; };
  }
  std::string Complaint() {
    try {
      ReadDescriptor(&plugin_, "/x.so");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kPlugin);
      return error.what();
    }
    return "";
  }
  tandem_knob knob_{};
  const tandem_knob* knobs_ = &knob_;
  tandem_plugin plugin_{};
};

TEST_F(DescriptorTest, IsRead) {
  const PluginInfo info = ReadDescriptor(&plugin_, "/x.so");
  EXPECT_EQ(info.name, "good");
  EXPECT_EQ(info.version, "1.2");
  ASSERT_EQ(info.knobs.size(), 1u);
  EXPECT_EQ(info.knobs[0].type, "int");
  EXPECT_EQ(info.knobs[0].grid, std::vector<std::string>{"2"});
}

TEST_F(DescriptorTest, IsRefusedWhenBroken) {
  plugin_.plan = nullptr;
  EXPECT_THAT(Complaint(), HasSubstr("no plan()"));
  plugin_.name = "Not A Name";
  EXPECT_NE(Complaint(), "");
  plugin_.name = nullptr;
  EXPECT_NE(Complaint(), "");
  plugin_.struct_size = 12;
  EXPECT_THAT(Complaint(), HasSubstr("struct_size 12 (want at least 64"));
}

TEST_F(DescriptorTest, IsRefusedWhenAKnobIsBroken) {
  knob_.default_value = "two";
  EXPECT_THAT(Complaint(), HasSubstr("knob depth: 'two' is no int"));
  knob_.type = 9;
  EXPECT_THAT(Complaint(), HasSubstr("type 9"));
  knobs_ = nullptr;
  EXPECT_THAT(Complaint(), HasSubstr("tandem_knob is null"));
}

TEST(ResolveKnobsTest, FillsDefaultsAndSpellsValuesOneWay) {
  PluginInfo info;
  info.name = "p";
  info.knobs = {{"depth", "int", "2", {}, ""},
                {"fast", "bool", "false", {}, ""},
                {"share", "double", "0.5", {}, ""}};
  EXPECT_EQ(ResolveKnobs(info, {{"share", "1e0"}, {"fast", "on"}}),
            (std::vector<Knob>{{"depth", "2"}, {"fast", "true"}, {"share", "1"}}));
}

TEST(ResolveKnobsTest, RefusesUnknownTwiceAndIllTyped) {
  PluginInfo info;
  info.name = "p";
  info.knobs = {{"depth", "int", "2", {}, ""}};
  const auto complaint = [&](const std::vector<Knob>& knobs) -> std::string {
    try {
      ResolveKnobs(info, knobs);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(complaint({{"dept", "1"}}), HasSubstr("did you mean 'depth'?"));
  EXPECT_THAT(complaint({{"depth", "1"}, {"depth", "1"}}), HasSubstr("twice"));
  EXPECT_THAT(complaint({{"depth", "1.5"}}), HasSubstr("'1.5' is no int"));
  EXPECT_THAT(complaint({{"depth", "99999999999999999999"}}), HasSubstr("is no int"));
}

}  // namespace
}  // namespace tandem
