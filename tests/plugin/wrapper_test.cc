// The C++ wrapper: no exception gets out, shares are cut as documented.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/plugin/host.h"
#include "tandem/plugin.hpp"
#include "tests/plugin/test_problem.h"

namespace tandem {
namespace {

using plugin::Draft;
using plugin::Failure;
using plugin::Units;

// Runs a wrapped plan() against the test problem; the status, and what was said.
struct Outcome {
  tandem_status status;
  std::vector<std::string> said;
};

template <void (*Plan)(Draft&)>
Outcome Call() {
  TestProblem test;
  Outcome outcome{};
  PluginHost host(test.problem, PluginInfo{.name = "w"}, {{"depth", "3"}},
                  [&](int32_t, const std::string& text) { outcome.said.push_back(text); });
  const tandem_plugin* plugin = plugin::Define<Plan>({.name = "w", .version = "1", .summary = "s"});
  outcome.status = plugin->plan(host.problem(), host.abi());
  return outcome;
}

void ThrowsRuntimeError(Draft&) { throw std::runtime_error("boom"); }
void ThrowsInt(Draft&) { throw 42; }
void ThrowsBadAlloc(Draft&) { throw std::bad_alloc(); }
void ThrowsFailure(Draft&) { throw Failure(TANDEM_UNSUPPORTED, "not this model"); }
void KnobOutOfRange(Draft& d) { d.IntKnob("depth", 4, 8); }
void UndeclaredKnob(Draft& d) { d.Knob("nothing"); }
void RefusedCall(Draft& d) { d.Norm(1, {77, 0, 0}); }
void Nothing(Draft&) {}

TEST(WrapperTest, LetsNoExceptionOut) {
  EXPECT_EQ(Call<ThrowsRuntimeError>().status, TANDEM_ERROR);
  EXPECT_THAT(Call<ThrowsRuntimeError>().said, testing::ElementsAre("boom"));
  EXPECT_EQ(Call<ThrowsInt>().status, TANDEM_ERROR);
  EXPECT_EQ(Call<ThrowsInt>().said.size(), 1u);
  EXPECT_EQ(Call<ThrowsBadAlloc>().status, TANDEM_ERROR);
  EXPECT_EQ(Call<ThrowsFailure>().status, TANDEM_UNSUPPORTED);
  EXPECT_EQ(Call<KnobOutOfRange>().status, TANDEM_INVALID);
  EXPECT_THAT(Call<KnobOutOfRange>().said, testing::ElementsAre("knob depth: 3 (want 4 to 8)"));
  EXPECT_EQ(Call<UndeclaredKnob>().status, TANDEM_ERROR);
  EXPECT_EQ(Call<Nothing>().status, TANDEM_OK);
}

TEST(WrapperTest, PassesTheHostsRefusalOnWithoutAWordOfItsOwn) {
  const Outcome outcome = Call<RefusedCall>();
  EXPECT_EQ(outcome.status, TANDEM_REFUSED);
  EXPECT_TRUE(outcome.said.empty());
}

tandem_price first_price;
tandem_price second_price;
bool fits = true;

void Searches(Draft& d) {
  for (tandem_price* price : {&first_price, &second_price}) {
    d.Reset();
    d.PlaceAll(0);
    for (uint32_t program : plugin::kPrograms) {
      d.Program(program);
      d.WholeChain(0);
    }
    fits = d.Fits();
    *price = d.Price().value();
  }
}

TEST(WrapperTest, ChecksAndPricesDrafts) {
  const Outcome outcome = Call<Searches>();
  EXPECT_EQ(outcome.status, TANDEM_OK);
  EXPECT_TRUE(fits);
  EXPECT_GT(first_price.decode_seconds, 0);
  EXPECT_GT(first_price.prefill_seconds, first_price.decode_seconds);
  EXPECT_EQ(first_price.prefill_seconds, second_price.prefill_seconds);
  EXPECT_EQ(first_price.decode_seconds, second_price.decode_seconds);
}

// Sizes of each device's share of a block's units.
std::vector<uint32_t> Parts(uint32_t kv_heads, const std::vector<double>& shares) {
  ProblemShape shape;
  shape.kv_heads = kv_heads;
  shape.devices = static_cast<uint32_t>(shares.size());
  shape.tensor_split = shares;
  TestProblem test(shape);
  PluginHost host(test.problem, PluginInfo{}, {}, [](int32_t, const std::string&) {});
  Draft draft(*host.problem(), *host.abi());
  std::vector<uint32_t> sizes;
  uint32_t end = 0;
  for (int32_t d = 0; d < draft.n_devices(); ++d) {
    const Units part = draft.part(1, d);
    EXPECT_EQ(part.begin, end);
    end = part.end;
    sizes.push_back(part.end - part.begin);
  }
  EXPECT_EQ(end, kv_heads);
  return sizes;
}

TEST(WrapperTest, SharesUnitsOut) {
  EXPECT_THAT(Parts(3, {1, 1}), testing::ElementsAre(2, 1));
  EXPECT_THAT(Parts(3, {2, 1}), testing::ElementsAre(2, 1));
  EXPECT_THAT(Parts(3, {1, 2}), testing::ElementsAre(1, 2));
  EXPECT_THAT(Parts(8, {1, 1, 1}), testing::ElementsAre(3, 2, 3));
  EXPECT_THAT(Parts(8, {3, 1}), testing::ElementsAre(6, 2));
  EXPECT_THAT(Parts(2, {0, 1}), testing::ElementsAre(0, 2));
  const std::vector<uint32_t> more_devices_than_units = Parts(1, {1, 1, 1, 1});
  EXPECT_EQ(more_devices_than_units.size(), 4u);
}

std::vector<tandem_device_id> Cut(uint32_t layers, const std::vector<double>& sizes,
                                  const std::vector<double>& capacity) {
  ProblemShape shape;
  shape.layers = layers;
  shape.devices = static_cast<uint32_t>(capacity.size());
  TestProblem test(shape);
  PluginHost host(test.problem, PluginInfo{}, {}, [](int32_t, const std::string&) {});
  return Draft(*host.problem(), *host.abi()).CutByLayer(sizes, capacity);
}

TEST(WrapperTest, CutsBetweenLayersByTheirMiddles) {
  const std::vector<double> even(10, 1.0);  // 4 layers
  EXPECT_THAT(Cut(4, even, {1, 1}), testing::ElementsAre(0, 0, 0, 0, 0, 1, 1, 1, 1, 1));
  EXPECT_THAT(Cut(4, even, {2, 1}), testing::ElementsAre(0, 0, 0, 0, 0, 0, 0, 1, 1, 1));
  EXPECT_THAT(Cut(4, even, {1, 0}), testing::Each(0));
  EXPECT_THAT(Cut(4, even, {0, 1}), testing::Each(1));
  EXPECT_THAT(Cut(4, even, {1}), testing::Each(0));
  // A heavy embedding takes the first device for itself.
  EXPECT_THAT(Cut(1, {30, 1, 1, 2}, {1, 1}), testing::ElementsAre(0, 1, 1, 1));
  // More devices than layers: one may get nothing, the order holds.
  EXPECT_THAT(Cut(1, {1, 1, 1, 1}, {1, 1, 1, 1}), testing::ElementsAre(0, 2, 2, 3));
}

}  // namespace
}  // namespace tandem
