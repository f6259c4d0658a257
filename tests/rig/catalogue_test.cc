// The catalogue's files and the errors a rig or link file can earn. Runs in the repository's root.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>

#include "engine/base/error.h"
#include "engine/model/synthetic.h"
#include "engine/rig/rig.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::HasSubstr;

Catalogue Shipped() { return Catalogue({"scenarios"}); }

// A catalogue folder of its own for each test, gone afterwards.
class OwnCatalogueTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ =
        fs::path(testing::TempDir()) /
        ("catalogue_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    for (const char* folder : {"rigs/devices", "links/host", "models"}) {
      fs::create_directories(root_ / folder);
    }
  }
  void TearDown() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::ofstream(root_ / path) << text;
  }
  Catalogue Own() const { return Catalogue({root_.string(), "scenarios"}); }

  // A rig file with `devices` and `link` as given.
  void WriteRig(const std::string& devices, const std::string& link) {
    Write("rigs/r.yaml", "name: r\ndescription: d\ndevices:\n" + devices + "link: " + link +
                             "\nhost_link: {name: h, kind: host, send: {latency_us: 1, gb_per_s: "
                             "10}, source: s}\nhost_memory_gib: 4\n");
  }

  std::string LoadError(ErrorCode want = ErrorCode::kInvalidArgument) {
    try {
      Own().LoadRig("r");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), want) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "no error";
    return "";
  }

  static constexpr const char* kCard =
      "  - {name: c, memory_gib: 8, memory_gb_per_s: 100, tflops: 2, source: s}\n";

  fs::path root_;
};

TEST_F(OwnCatalogueTest, AFileOfThisFolderNeedsNoSlash) {
  WriteRig(kCard, "ideal");
  const fs::path here = fs::current_path();
  fs::copy_file(root_ / "rigs/r.yaml", root_ / "mine.yaml");
  fs::copy_file(root_ / "rigs/r.yaml", root_ / "no-suffix");
  const Catalogue catalogue({fs::absolute("scenarios").string()});
  fs::current_path(root_);
  EXPECT_EQ(catalogue.LoadRig("mine.yaml").name, "r");
  EXPECT_EQ(catalogue.LoadRig("no-suffix").name, "r");
  EXPECT_THROW(catalogue.LoadRig("absent.yaml"), Error);
  EXPECT_EQ(catalogue.LoadRig("2x3090-nvlink").name, "2x3090-nvlink");
  fs::current_path(here);
}

TEST(CatalogueTest, EveryRigLoadsUnderItsFilesName) {
  Catalogue catalogue = Shipped();
  ASSERT_FALSE(catalogue.RigNames().empty());
  for (const std::string& name : catalogue.RigNames()) {
    Rig rig = catalogue.LoadRig(name);
    EXPECT_EQ(rig.name, name);
    EXPECT_FALSE(rig.is_this_machine);
    for (const DeviceSpec& device : rig.devices) {
      EXPECT_FALSE(device.source.empty()) << name;
      EXPECT_GT(device.launch_gap, Nanos{0}) << name;
    }
    // Every rig can carry out its own default path, and more bytes never take less time to reduce.
    rig.ResolvePath(PathKind::kAuto);
    EXPECT_LT(rig.AllReduceTime(2, Bytes{8192}), rig.AllReduceTime(2, Bytes{64 << 20})) << name;
  }
}

TEST(CatalogueTest, EveryLinkLoadsUnderItsFilesName) {
  Catalogue catalogue = Shipped();
  ASSERT_FALSE(catalogue.LinkNames().empty());
  for (const std::string& name : catalogue.LinkNames()) {
    LinkProfile link = catalogue.LoadLink(name);
    EXPECT_EQ(link.name, name);
    EXPECT_FALSE(link.source.empty()) << name;
  }
}

TEST(CatalogueTest, EveryModelShapeIsASyntheticSpecification) {
  Catalogue catalogue = Shipped();
  ASSERT_FALSE(catalogue.ModelNames().empty());
  for (const std::string& name : catalogue.ModelNames()) {
    SyntheticSpec spec = ParseSyntheticSpec(catalogue.LoadModelShape(name));
    std::shared_ptr<const Model> model = MakeShapeOnlyModel(spec);
    std::ifstream file("scenarios/models/" + name + ".yaml");
    std::string line;
    std::getline(file, line);
    EXPECT_EQ(line, "name: " + name);
    EXPECT_GT(model->weight_bytes().value, 0u) << name;
  }
}

// Parameters of a shape: every block's elements, a tied table once.
double Parameters(const Model& model) {
  double sum = 0;
  for (const Block& block : model.blocks().blocks) {
    if (block.kind == BlockKind::kEmbed) {
      sum += 1.0 * model.config().vocab * model.config().hidden;
    } else if (block.kind != BlockKind::kHead || !model.blocks().tied) {
      sum += static_cast<double>(block.params_per_elem) * block.elems;
    }
  }
  return sum;
}

TEST(CatalogueTest, ShapesHaveTheSizesTheirNamesSay) {
  const std::map<std::string, double> sizes{{"smollm2-135m-q4_1", 134.5e6},
                                            {"smollm2-360m", 361.8e6},
                                            {"smollm2-1.7b", 1.711e9},
                                            {"tinyllama-1.1b", 1.100e9},
                                            {"llama-2-7b", 6.738e9},
                                            {"llama-2-13b", 13.016e9},
                                            {"llama-3.2-1b", 1.236e9},
                                            {"llama-3.2-3b", 3.213e9},
                                            {"llama-3.1-8b", 8.030e9},
                                            {"llama-3.1-70b", 70.55e9},
                                            {"mistral-7b", 7.248e9},
                                            {"mistral-small-24b", 23.57e9},
                                            {"qwen2.5-0.5b", 494.0e6},
                                            {"qwen2.5-1.5b", 1.544e9},
                                            {"qwen2.5-7b", 7.616e9},
                                            {"qwen3-0.6b", 596.0e6},
                                            {"qwen3-4b", 4.022e9},
                                            {"qwen3-8b", 8.191e9},
                                            {"qwen3-32b", 32.76e9},
                                            {"ladder-10m", 10e6},
                                            {"ladder-20m", 20e6},
                                            {"ladder-50m", 50e6},
                                            {"ladder-100m", 100e6},
                                            {"ladder-200m", 200e6},
                                            {"ladder-500m", 500e6},
                                            {"ladder-1b", 1e9},
                                            {"ladder-2b", 2e9},
                                            {"ladder-4b", 4e9},
                                            {"ladder-8b", 8e9},
                                            {"ladder-16b", 16e9},
                                            {"ladder-32b", 32e9},
                                            {"ladder-70b", 70e9}};
  Catalogue catalogue = Shipped();
  for (const auto& [name, parameters] : sizes) {
    std::shared_ptr<const Model> model =
        MakeShapeOnlyModel(ParseSyntheticSpec(catalogue.LoadModelShape(name)));
    // Published counts include the norms; the ladder's names are rounded.
    double tolerance = name.starts_with("ladder") ? 0.03 : 0.002;
    EXPECT_NEAR(Parameters(*model) / parameters, 1, tolerance) << name;
  }
}

TEST(CatalogueTest, EveryCardIsInARigOfTwo) {
  Catalogue catalogue = Shipped();
  std::set<std::string> seen;
  for (const std::string& name : catalogue.RigNames()) {
    Rig rig = catalogue.LoadRig(name);
    if (rig.size() == 2) seen.insert(rig.devices[0].name);
  }
  std::set<std::string> cards;
  for (const auto& entry : fs::directory_iterator("scenarios/rigs/devices")) {
    if (entry.path().filename().string().starts_with("cpu-")) continue;  // beside a card
    std::ifstream file(entry.path());
    std::string line;
    std::getline(file, line);
    ASSERT_TRUE(line.starts_with("name: ")) << entry.path();
    cards.insert(line.substr(6));
  }
  EXPECT_EQ(cards.size(), 17u);
  for (const std::string& card : cards) EXPECT_TRUE(seen.count(card)) << card;
}

TEST(CatalogueTest, EveryKindAndSizeOfRigIsThere) {
  Catalogue catalogue = Shipped();
  std::set<LinkKind> kinds;
  std::set<uint32_t> sizes;
  for (const std::string& name : catalogue.RigNames()) {
    Rig rig = catalogue.LoadRig(name);
    kinds.insert(rig.link.kind);
    sizes.insert(rig.size());
  }
  for (LinkKind kind : {LinkKind::kNvlink, LinkKind::kPcieP2p, LinkKind::kHostStaged}) {
    EXPECT_TRUE(kinds.count(kind)) << ToString(kind);
  }
  EXPECT_EQ(sizes, (std::set<uint32_t>{1, 2, 3, 4}));
}

TEST(CatalogueTest, WiderSlotsAndLaterGenerationsAreFaster) {
  Catalogue catalogue = Shipped();
  const Bytes large{64 << 20};
  auto time = [&](int generation, int width) {
    return catalogue
        .LoadLink("pcie" + std::to_string(generation) + "-x" + std::to_string(width) + "-p2p")
        .send.At(large);
  };
  for (int generation : {3, 4, 5}) {
    EXPECT_GT(time(generation, 4), time(generation, 8));
    EXPECT_GT(time(generation, 8), time(generation, 16));
    for (int width : {4, 8, 16}) {
      if (generation == 3) continue;
      EXPECT_LT(time(generation, width), time(generation - 1, width));
    }
  }
  // The measured tables: an in-graph kernel is never slower than NCCL outside for small messages.
  for (const char* pair : {"pcie4-l40s", "pcie5-pro6000", "nvlink3-a100", "nvlink4-h100",
                           "nvlink4-h200", "nvlink5-b200"}) {
    std::string name = pair;
    EXPECT_LT(catalogue.LoadLink(name + "-graph").all_reduce.At(Bytes{8192}),
              catalogue.LoadLink(name + "-nccl").all_reduce.At(Bytes{8192}))
        << pair;
  }
}

TEST(CatalogueTest, UnknownNamesGetANearOne) {
  try {
    Shipped().LoadRig("2x3090-nvlnk");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr("did you mean '2x3090-nvlink'?"));
  }
  for (const char* name : {"../rigs/x", "./no.yaml", "", "..", "a b"}) {
    EXPECT_THROW(Shipped().LoadLink(name), Error) << name;
  }
}

TEST(CatalogueTest, WrittenRigsReadBackTheSame) {
  fs::path path = fs::path(testing::TempDir()) / "written_rig.yaml";
  Catalogue catalogue = Shipped();
  for (const std::string& name : catalogue.RigNames()) {
    Rig rig = catalogue.LoadRig(name);
    std::ofstream(path) << FormatRigYaml(rig);
    Rig back = catalogue.LoadRig(path.string());
    EXPECT_EQ(back.Fingerprint(), rig.Fingerprint()) << name;
    EXPECT_EQ(back.devices[0].source, rig.devices[0].source);
    EXPECT_EQ(back.link.source, rig.link.source);
  }
  fs::remove(path);
}

TEST_F(OwnCatalogueTest, EarlierRootsWinAndAllNamesAreListed) {
  Write("links/ideal.yaml",
        "name: mine\nkind: nvlink\nsend: [[1, 2], [2, 3.5]]\nsource: s\nfull_duplex: false\n");
  LinkProfile link = Own().LoadLink("ideal");
  EXPECT_EQ(link.name, "mine");
  EXPECT_FALSE(link.full_duplex);
  EXPECT_EQ(link.send.points[1].time, Nanos{3500});
  EXPECT_THAT(Own().LinkNames(), Contains("nvlink3-bridge"));
}

TEST_F(OwnCatalogueTest, DevicesAreNamedCountedAndOverridden) {
  Write("rigs/devices/c.yaml",
        "name: c\nmemory_gib: 8\nmemory_gb_per_s: 100\ntflops: 2\nlaunch_gap_us: 4\n"
        "replay_gap_us: 1.5\nsource: s\n");
  WriteRig("  - {device: c, count: 2}\n  - {device: c, tflops: 1, name: slow c}\n", "ideal");
  Rig rig = Own().LoadRig("r");
  ASSERT_EQ(rig.size(), 3u);
  EXPECT_EQ(rig.devices[1].flops, 2e12);
  EXPECT_EQ(rig.devices[2].flops, 1e12);
  EXPECT_EQ(rig.devices[2].name, "slow c");
  EXPECT_EQ(rig.devices[2].launch_gap, Nanos{4000});
  EXPECT_EQ(rig.devices[2].replay_gap, Nanos{1500});
  EXPECT_EQ(rig.devices[2].memory, Bytes{uint64_t{8} << 30});
}

TEST_F(OwnCatalogueTest, RefusesBadRigsWithTheirLine) {
  WriteRig("  - {name: c, memory_gb: 8, memory_gb_per_s: 100, tflops: 2, source: s}\n", "ideal");
  EXPECT_THAT(LoadError(), HasSubstr("r.yaml:4: devices[0]: key 'memory_gib' is missing"));
  WriteRig("  - {device: rtx-3090, tflop: 3}\n", "ideal");
  EXPECT_THAT(LoadError(), HasSubstr("tflop: unknown key (did you mean 'tflops'?)"));
  WriteRig("  - {device: rtx-3090, count: 17}\n", "ideal");
  EXPECT_THAT(LoadError(), HasSubstr("want 1 to 16"));
  WriteRig("  - {device: rtx-3090, memory_efficiency: 1.5}\n", "ideal");
  EXPECT_THAT(LoadError(), HasSubstr("memory_efficiency: got 1.5"));
  WriteRig("  - {device: rtx-309O}\n", "ideal");
  EXPECT_THAT(LoadError(ErrorCode::kNotFound), HasSubstr("r.yaml:4: device 'rtx-309O'"));
  WriteRig(kCard, "nvlink3-brigde");
  EXPECT_THAT(LoadError(ErrorCode::kNotFound), HasSubstr("did you mean 'nvlink3-bridge'?"));
}

TEST_F(OwnCatalogueTest, RefusesBadLinks) {
  auto link_error = [&](const std::string& body) {
    WriteRig(kCard, "{name: l, source: s, " + body + "}");
    return LoadError();
  };
  EXPECT_THAT(link_error("kind: nvlnk"), HasSubstr("got 'nvlnk'"));
  EXPECT_THAT(link_error("kind: host, send: [[1, 1], [2, 2]]"), HasSubstr("got 'host'"));
  EXPECT_THAT(link_error("kind: nvlink"), HasSubstr("key 'send' is missing"));
  EXPECT_THAT(link_error("kind: nvlink, send: [[1, 1]]"), HasSubstr("got 1 points"));
  EXPECT_THAT(link_error("kind: nvlink, send: [[2, 1], [2, 2]]"), HasSubstr("must increase"));
  EXPECT_THAT(link_error("kind: nvlink, send: [[1, 3], [2, 2]]"), HasSubstr("less time"));
  EXPECT_THAT(link_error("kind: nvlink, send: [[1, 1, 1], [2, 2]]"), HasSubstr("want a point"));
  EXPECT_THAT(link_error("kind: nvlink, send: {latency_us: 1, gb_per_s: 0}"),
              HasSubstr("gb_per_s: got 0"));
  EXPECT_THAT(link_error("kind: ideal, send: [[1, 1], [2, 2]]"), HasSubstr("unknown key"));
  const std::string good = "kind: nvlink, send: [[1, 1], [2, 2]], ";
  EXPECT_THAT(link_error(good + "send_replayed: [[1, 1]]"), HasSubstr("got 1 points"));
  EXPECT_THAT(link_error(good + "send_replayed: [[2, 1], [1, 2]]"), HasSubstr("must increase"));
  EXPECT_THAT(link_error(good + "all_reduce_replayed: [[1, 1], [2, 2]]"),
              HasSubstr("all_reduce_replayed: stands without all_reduce"));
  EXPECT_THAT(link_error("kind: ideal, send_replayed: [[1, 1], [2, 2]]"), HasSubstr("unknown key"));
}

TEST_F(OwnCatalogueTest, LatencyAndBandwidthMakeAnAlphaBetaCurve) {
  WriteRig(kCard, "{name: l, source: s, kind: nvlink, send: {latency_us: 2, gb_per_s: 10}}");
  Rig rig = Own().LoadRig("r");
  EXPECT_EQ(rig.HopTime(DeviceId{0}, DeviceId{1}, Bytes{1000000}), Nanos{2000 + 100000});
}

// A curve for replays counts where it is given; a file without one means the same for both.
TEST_F(OwnCatalogueTest, LinksMayHaveCurvesForReplays) {
  const std::string link =
      "{name: l, source: s, kind: nvlink, send: [[0, 10], [1000, 20]], "
      "all_reduce: [[0, 30], [1000, 40]]";
  WriteRig(kCard, link + "}");
  const Rig one = Own().LoadRig("r");
  WriteRig(kCard, link +
                      ", send_replayed: [[0, 3], [1000, 5]], "
                      "all_reduce_replayed: {latency_us: 7, gb_per_s: 1}}");
  const Rig both = Own().LoadRig("r");
  const DeviceId d0{0}, d1{1};
  const Bytes bytes{1000};
  for (const Rig* rig : {&one, &both}) {
    EXPECT_EQ(rig->HopTime(d0, d1, bytes), Nanos{20'000});
    EXPECT_EQ(rig->AllReduceTime(2, bytes), Nanos{40'000});
  }
  const auto replayed = [&](const Rig& rig) {
    return std::pair(rig.HopTime(d0, d1, bytes, MoveLaunch::kReplayed),
                     rig.AllReduceTime(2, bytes, PathKind::kAuto, MoveLaunch::kReplayed));
  };
  EXPECT_EQ(replayed(one), std::pair(Nanos{20'000}, Nanos{40'000}));
  EXPECT_EQ(replayed(both), std::pair(Nanos{5'000}, Nanos{8'000}));
  EXPECT_NE(one.Fingerprint(), both.Fingerprint());
  EXPECT_EQ(one.FingerprintWithoutLinks(), both.FingerprintWithoutLinks());

  const fs::path path = fs::path(testing::TempDir()) / "replayed_rig.yaml";
  std::ofstream(path) << FormatRigYaml(both);
  EXPECT_EQ(Own().LoadRig(path.string()).Fingerprint(), both.Fingerprint());
  fs::remove(path);
}

TEST_F(OwnCatalogueTest, RefusesBadModelShapes) {
  Write("models/m.yaml", "name: m\nsource: s\nhidden: 0\n");
  try {
    Own().LoadModelShape("m");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("m.yaml:3: hidden: got 0"));
  }
}

}  // namespace
}  // namespace tandem
