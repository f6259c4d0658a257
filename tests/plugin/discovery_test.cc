// Where plugins are found, and which files are never opened.
#include "engine/plugin/discovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "engine/base/error.h"
#include "tests/plugin/temporary_folder.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string Complaint(const std::string& name, const std::vector<std::string>& folders,
                      ErrorCode code) {
  try {
    FindPlugin(name, folders);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  return "";
}

TEST(DiscoveryTest, FindsByNameInOrder) {
  TemporaryFolder first;
  TemporaryFolder second;
  first.Write("plain.so", "");
  second.Write("libtandem_plain.so", "");
  second.Write("libtandem_other.so", "");
  second.Write("other.so", "");
  second.Write("notes.txt", "");
  const std::vector<std::string> folders{first.path(), "/does/not/exist", second.path()};
  EXPECT_EQ(FindPlugin("plain", folders).path, fs::canonical(first / "plain.so"));
  EXPECT_EQ(FindPlugin("other", folders).path, fs::canonical(second / "libtandem_other.so"));
  EXPECT_EQ(FindPlugin("other", folders).name, "other");

  const std::vector<PluginFile> all = ListPluginFiles(folders);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].name, "other");
  EXPECT_EQ(all[0].path, fs::canonical(second / "libtandem_other.so"));
  EXPECT_EQ(all[1].path, fs::canonical(first / "plain.so"));
}

TEST(DiscoveryTest, SuggestsNearNames) {
  TemporaryFolder folder;
  folder.Write("libtandem_layer_split.so", "");
  EXPECT_THAT(Complaint("layer_splt", {folder.path()}, ErrorCode::kPlugin),
              HasSubstr("did you mean 'layer_split'?"));
  EXPECT_THAT(Complaint("", {folder.path()}, ErrorCode::kPlugin), HasSubstr("not found"));
}

TEST(DiscoveryTest, ANameWithASlashIsAPath) {
  TemporaryFolder folder;
  folder.Write("mine.so", "");
  EXPECT_EQ(FindPlugin(folder / "mine.so", {}).path, fs::canonical(folder / "mine.so"));
  EXPECT_THAT(Complaint(folder / "other.so", {folder.path()}, ErrorCode::kPlugin),
              HasSubstr("no such file"));
}

TEST(DiscoveryTest, NeverLooksInTheCurrentFolder) {
  TemporaryFolder folder;
  folder.Write("here.so", "");
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  EXPECT_NE(Complaint("here", {}, ErrorCode::kPlugin), "");
  EXPECT_NE(Complaint("here", {""}, ErrorCode::kPlugin), "");
  EXPECT_TRUE(ListPluginFiles({""}).empty());
  EXPECT_EQ(FindPlugin("./here.so", {}).path, fs::canonical(folder / "here.so"));
  fs::current_path(before);
}

TEST(DiscoveryTest, RefusesWhatAnyoneMayWrite) {
  TemporaryFolder folder;
  const std::string file = folder.Write("open.so", "");
  chmod(file.c_str(), 0666);
  EXPECT_THAT(Complaint("open", {folder.path()}, ErrorCode::kPlugin),
              HasSubstr("anyone may write to it"));
  chmod(file.c_str(), 0644);
  EXPECT_EQ(Complaint("open", {folder.path()}, ErrorCode::kPlugin), "");
  chmod(folder.path().c_str(), 0777);
  EXPECT_THAT(Complaint("open", {folder.path()}, ErrorCode::kPlugin),
              HasSubstr("anyone may write to its folder"));
  chmod(folder.path().c_str(), 0755);
}

TEST(DiscoveryTest, JudgesLinksByWhereTheyAreAndWhereTheyLead) {
  TemporaryFolder safe;
  TemporaryFolder open;
  fs::create_symlink(open.Write("target.so", ""), safe / "linked.so");
  fs::create_symlink(safe.Write("good.so", ""), open / "back.so");
  chmod(open.path().c_str(), 0777);
  EXPECT_NE(Complaint("linked", {safe.path()}, ErrorCode::kPlugin), "");
  EXPECT_NE(Complaint("back", {open.path()}, ErrorCode::kPlugin), "");
  chmod(open.path().c_str(), 0755);
  EXPECT_EQ(Complaint("linked", {safe.path()}, ErrorCode::kPlugin), "");
}

// Found-but-bad stops: a good file further down the path is no way out.
TEST(DiscoveryTest, ABadFileHidesAGoodOneBehindIt) {
  TemporaryFolder first;
  TemporaryFolder second;
  chmod(first.Write("twice.so", "").c_str(), 0666);
  second.Write("twice.so", "");
  EXPECT_NE(Complaint("twice", {first.path(), second.path()}, ErrorCode::kPlugin), "");
  fs::create_symlink("/does/not/exist", first / "dangling.so");
  EXPECT_THAT(Complaint("dangling", {first.path()}, ErrorCode::kPlugin), HasSubstr("broken link"));
  fs::create_directory(first / "folder.so");
  EXPECT_THAT(Complaint("folder", {first.path()}, ErrorCode::kPlugin),
              HasSubstr("no regular file"));
}

}  // namespace
}  // namespace tandem
