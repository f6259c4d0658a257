// A rig with what a probe measured goes through its file unchanged, and a damaged file is refused
// with its line.
#include "engine/rig/measurements.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "engine/base/error.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

RigMeasurements Everything() {
  RigMeasurements m{.date = "2026-11-25T12:00:00Z",
                    .version = "0.1.0",
                    .devices = "cuda:0,cuda:1",
                    .facts = {},
                    .figures = {},
                    .paths = {},
                    .counters = {}};
  m.facts = {{"machine", "driver", "580.65.06", ""},
             {"d0", "PCIe width under load", "", "nvml: \"Not Supported\" \\ here"}};
  m.figures = {{0, "memory read", "GB/s", Spread{1.0 / 3, 0.25, 1e9, 15}, ""},
               {1, "int8 products", "TFLOP/s", {}, "no cuBLAS: here"}};
  m.paths = {{PathKind::kHostStaged,
              "d0 to d1",
              {{Bytes{64}, Spread{12.3456789, 11, 13, 9}},
               {Bytes{uint64_t{1} << 30}, Spread{2.5e6, 2.4e6, 2.6e6, 9}}},
              ""},
             {PathKind::kNccl, "can be had", {}, "link: path nccl: cuda:0 stands for two"}};
  m.counters = {{PathKind::kCopy, "d0 to d1", "nvlink_sent of d0", Bytes{1u << 30},
                 Bytes{(1u << 30) + 5}, 0.02, CounterVerdict::kMeasured, ""},
                {PathKind::kCopy, "d0 to d1", "pcie_sent of d0", Bytes{1}, Bytes{2}, 0.1,
                 CounterVerdict::kMismatch, ""},
                {PathKind::kP2p, "d1 to d0", "nvlink_sent of d1", Bytes{0}, Bytes{0}, 0.02,
                 CounterVerdict::kNotAvailable, "nvml: no"}};
  return m;
}

class MeasurementsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = (fs::path(testing::TempDir()) /
             (std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + ".yaml"))
                .string();
  }
  void TearDown() override { fs::remove(path_); }

  Rig Load(const std::string& text) const {
    std::ofstream(path_) << text;
    return Catalogue({}).LoadRig(path_);
  }
  static std::string Text() {
    Rig rig = ThisMachineRig(2);
    rig.measured = std::make_shared<const RigMeasurements>(Everything());
    return FormatRigYaml(rig);
  }
  // The file with one piece of its text replaced is refused with `want`.
  void Damaged(const std::string& from, const std::string& to, const std::string& want) {
    std::string text = Text();
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    try {
      Load(text);
      FAIL() << "not refused: want " << want;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_THAT(error.what(), HasSubstr(want));
      EXPECT_THAT(error.what(), HasSubstr(".yaml:")) << "names the line";
    }
  }
  std::string path_;
};

TEST_F(MeasurementsTest, GoThroughAFileUnchanged) {
  Rig rig = ThisMachineRig(2);
  rig.measured = std::make_shared<const RigMeasurements>(Everything());
  rig.is_this_machine = false;
  const Rig back = Load(FormatRigYaml(rig));
  ASSERT_NE(back.measured, nullptr);
  EXPECT_EQ(*back.measured, Everything());
  EXPECT_EQ(back.Fingerprint(), rig.Fingerprint());
  EXPECT_EQ(FormatRigYaml(back), FormatRigYaml(rig));
}

TEST_F(MeasurementsTest, ChangeNoTimeOfTheRig) {
  Rig rig = ThisMachineRig(2);
  const std::string before = rig.Fingerprint();
  rig.measured = std::make_shared<const RigMeasurements>(Everything());
  EXPECT_EQ(rig.Fingerprint(), before);
}

TEST_F(MeasurementsTest, ARigWithoutThemHasNone) {
  EXPECT_EQ(Load(FormatRigYaml(ThisMachineRig(1))).measured, nullptr);
}

TEST_F(MeasurementsTest, DamagedFilesAreRefusedWithTheirLine) {
  Damaged("path: nccl", "path: nckl", "got 'nckl'");
  Damaged("path: nccl", "path: auto", "got 'auto'");
  Damaged("verdict: mismatch", "verdict: fine", "got 'fine'");
  Damaged("[64, 12.3456789, 11, 13, 9]", "[64, 12.3456789, 11, 13]", "got 4 numbers");
  Damaged("[64, ", "[-64, ", "got -64");
  Damaged("date:", "dates:", "key 'date' is missing");
  Damaged("absent: \"no cuBLAS: here\"", "other: \"x\"", "key 'value' is missing");
  Damaged("counter: \"pcie_sent of d0\"", "counted_by: x", "key 'counter' is missing");
  Damaged("of: \"machine\"", "of: \"machine\", or: x", "unknown key");
}

}  // namespace
}  // namespace tandem
