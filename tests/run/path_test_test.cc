// The test of a rig's paths: passes those that deliver, on the CPU and on fake devices, and says
// what is wrong with one that does not.
#include "engine/run/path_test.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/base/error.h"
#include "tests/support/fake_machine.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

BackendSetup SetupFor(const Rig& rig) {
  return BackendSetup{.rig = &rig,
                      .n_devices = rig.size(),
                      .ops = CpuOpsOptions{.tier = "ref"},
                      .pool = std::make_shared<ThreadPool>(ThreadPoolOptions{.threads = 1})};
}

TEST(PathTestTest, EveryPathOfCpuDevicesDelivers) {
  const Rig rig = ThisMachineRig(3);
  const auto backend = MakeCpuBackend(SetupFor(rig));
  const auto verdicts = TestPaths(*backend, PathsToTest(rig));
  EXPECT_EQ(verdicts.size(), 2u * (6 + 1));
  for (const PathVerdict& verdict : verdicts) EXPECT_TRUE(verdict.passed) << verdict.why;
  for (const auto& device : backend->devices()) {
    EXPECT_EQ(device->ledger().used(), Bytes{}) << "gives its memory back";
  }
}

TEST(PathTestTest, EveryPathOfFakeDevicesDelivers) {
  const Rig rig = ThisMachineRig(2);
  for (uint64_t seed : {1u, 2u}) {
    testing::FakeMachine machine(seed);
    const auto backend = machine.MakeBackend(SetupFor(rig));
    for (const PathVerdict& verdict : TestPaths(*backend, PathsToTest(rig))) {
      EXPECT_TRUE(verdict.passed) << verdict.what << ": " << verdict.why;
    }
  }
}

// Delivers messages of the self-test's sizes, and one element of others wrong.
class WrongSums final : public Transport {
 public:
  explicit WrongSums(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}
  PathKind mechanism() const override { return inner_->mechanism(); }
  PathKind path() const override { return inner_->path(); }
  void Copy(const CopyTask& task, TrafficLedger& ledger) override {
    inner_->Copy(task, ledger);
    if (task.row_bytes == 4096 * sizeof(float)) task.to[4 * 1234] ^= std::byte{1};
  }

 private:
  std::unique_ptr<Transport> inner_;
};

class WrongBackend final : public Backend {
 public:
  explicit WrongBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}
  std::span<const std::unique_ptr<Device>> devices() const override { return inner_->devices(); }
  Device& host() override { return inner_->host(); }
  Ops& ops(size_t device) override { return inner_->ops(device); }
  WireOps& wire_ops(size_t device) override { return inner_->wire_ops(device); }
  std::unique_ptr<Transport> MakeTransport(PathKind path) override {
    if (path == PathKind::kNccl) Fail(ErrorCode::kUnsupported, "there is no nccl here");
    return std::make_unique<WrongSums>(inner_->MakeTransport(path));
  }
  std::unique_ptr<Transport> MakeHostTransport(PathKind path) override {
    return inner_->MakeHostTransport(path);
  }

 private:
  std::unique_ptr<Backend> inner_;
};

TEST(PathTestTest, SumsThatAreWrongWhereMessagesAreRightAreFound) {
  const Rig rig = ThisMachineRig(2);
  WrongBackend backend(MakeCpuBackend(SetupFor(rig)));
  const std::vector<PathKind> paths{PathKind::kLocal, PathKind::kNccl};
  const auto verdicts = TestPaths(backend, paths);
  ASSERT_EQ(verdicts.size(), 4u);
  EXPECT_TRUE(verdicts[0].passed && verdicts[1].passed);
  EXPECT_FALSE(verdicts[2].passed);
  EXPECT_THAT(verdicts[2].why, HasSubstr("element 1234 of 4096"));
  EXPECT_EQ(verdicts[3].path, PathKind::kNccl);
  EXPECT_FALSE(verdicts[3].passed);
  EXPECT_THAT(verdicts[3].why, HasSubstr("no nccl here"));
}

}  // namespace
}  // namespace tandem
