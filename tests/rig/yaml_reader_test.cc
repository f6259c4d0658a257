// Strict YAML: what is refused, where the message points, and what an override changes.
#include "engine/rig/yaml_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "engine/base/error.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The message of the Error that `body` throws; fails the test when there is none.
std::string ErrorOf(const std::function<void()>& body,
                    ErrorCode want = ErrorCode::kInvalidArgument) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), want);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

std::string ParseError(const std::string& text) {
  return ErrorOf([&] { YamlDocument::Parse(text, "f.yaml"); });
}

TEST(YamlReaderTest, ReadsEveryKindOfValue) {
  YamlDocument doc = YamlDocument::Parse(
      "name: x\ngap: 2.5\ncount: -7\non: true\nlist: [a, 'b c']\nempty:\nmap: {k: 1}\n", "f.yaml");
  YamlMap map = doc.root().AsMap();
  EXPECT_EQ(map.String("name"), "x");
  EXPECT_EQ(map.Double("gap"), 2.5);
  EXPECT_EQ(map.Double("count"), -7.0);
  EXPECT_EQ(map.Int("count"), -7);
  EXPECT_TRUE(map.Bool("on", false));
  std::vector<YamlValue> list = map.Require("list").AsSequence();
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[1].AsString(), "b c");
  EXPECT_EQ(list[1].Path(), "list[1]");
  EXPECT_TRUE(map.Require("empty").IsNull());
  EXPECT_EQ(map.Require("map").AsMap().Int("k"), 1);
  EXPECT_EQ(map.Int("absent", 9), 9);
  EXPECT_FALSE(map.Get("gone").has_value());
  EXPECT_THAT(map.Keys(), ElementsAre("name", "gap", "count", "on", "list", "empty", "map"));
  map.Finish();
}

TEST(YamlReaderTest, RefusesUnknownKeysWithLineAndNearMiss) {
  YamlDocument doc =
      YamlDocument::Parse("a: 1\nworkload:\n  rate: 2\n  promt:\n    x: 1\n", "f.yaml");
  YamlMap map = doc.root().AsMap();
  map.Int("a");
  YamlMap workload = map.Require("workload").AsMap();
  workload.Double("rate");
  workload.Get("prompt");
  std::string message = ErrorOf([&] { workload.Finish(); });
  EXPECT_EQ(message, "f.yaml:4: workload.promt: unknown key (did you mean 'prompt'?)");
  map.Finish();
}

TEST(YamlReaderTest, NamesKnownKeysWhenNoneIsNear) {
  YamlMap map = YamlDocument::Parse("zebra: 1\n", "f.yaml").root().AsMap();
  map.Get("rate");
  map.Get("seed");
  EXPECT_EQ(ErrorOf([&] { map.Finish(); }),
            "f.yaml:1: zebra: unknown key (known here: rate, seed)");
}

TEST(YamlReaderTest, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_EQ(ParseError("a: 1\nb: 2\na: 3\n"), "f.yaml:3: key 'a' is given twice (first in line 1)");
  EXPECT_THAT(ParseError("m:\n  - {k: 1, k: 2}\n"), HasSubstr("f.yaml:2: key 'k' is given twice"));
}

TEST(YamlReaderTest, RefusesAnchorsAliasesTagsAndSecondDocuments) {
  EXPECT_THAT(ParseError("a: &x 1\nb: *x\n"), HasSubstr("f.yaml:1: YAML anchors and aliases"));
  EXPECT_THAT(ParseError("a: !!int 4\n"), HasSubstr("tag"));
  EXPECT_THAT(ParseError("a: 1\n---\nb: 2\n"), HasSubstr("second YAML document"));
  EXPECT_THAT(ParseError("? [a, b]\n: 1\n"), HasSubstr("a key must be a plain word"));
}

TEST(YamlReaderTest, RefusesSyntaxErrorsWithTheirLine) {
  EXPECT_THAT(ParseError("a: 1\nb: [1, 2\nc: }\n"), HasSubstr("f.yaml:3: not valid YAML"));
  EXPECT_THAT(ParseError("a: 1\nb: \x04 2\n"), HasSubstr("f.yaml:2: control character 0x04"));
}

TEST(YamlReaderTest, BoundsDepthAndSize) {
  EXPECT_THAT(ParseError(std::string(40, '[') + std::string(40, ']')), HasSubstr("nested deeper"));
  EXPECT_NE(ParseError(std::string(100000, '[')), "");
  EXPECT_THAT(ParseError(std::string((1 << 20) + 1, '#')), HasSubstr("at most 1048576"));
  YamlDocument::Parse(std::string(1 << 20, '#'), "f.yaml");
}

TEST(YamlReaderTest, RefusesNumbersThatReadTwoWays) {
  YamlMap map = YamlDocument::Parse(
                    "octal: 010\nunit: 1k\nbig: 1e999\nquoted: '4'\nfloat: 1.5\nnan: .nan\n"
                    "hex: 0x10\nhuge: 99999999999999999999\nyes: yes\nplus: -01.5\n",
                    "f.yaml")
                    .root()
                    .AsMap();
  for (const char* key : {"octal", "unit", "quoted", "float", "hex", "huge", "nan"}) {
    EXPECT_THAT(ErrorOf([&] { map.Int(key); }), HasSubstr("want a whole number")) << key;
  }
  for (const char* key : {"octal", "unit", "big", "quoted", "nan", "hex", "plus"}) {
    EXPECT_THAT(ErrorOf([&] { map.Double(key); }), HasSubstr("want a finite number")) << key;
  }
  EXPECT_EQ(ErrorOf([&] { map.Bool("yes", false); }),
            "f.yaml:9: yes: got 'yes' (want true or false)");
  EXPECT_EQ(map.Double("float"), 1.5);
}

TEST(YamlReaderTest, NamesWhatWasThereForTheWrongKind) {
  YamlMap map = YamlDocument::Parse("a: [1]\nb: {c: 1}\nd: 5\n", "f.yaml").root().AsMap();
  EXPECT_EQ(ErrorOf([&] { map.String("a"); }), "f.yaml:1: a: got a list (want text)");
  EXPECT_EQ(ErrorOf([&] { map.Int("b"); }),
            "f.yaml:2: b: got a map (want a whole number in decimal)");
  EXPECT_THAT(ErrorOf([&] { map.Require("d").AsMap(); }), HasSubstr("want a map"));
  EXPECT_THAT(ErrorOf([&] { map.Require("d").AsSequence(); }), HasSubstr("want a list"));
}

TEST(YamlReaderTest, MissingKeyNamesTheMisspeltOne) {
  YamlMap map = YamlDocument::Parse("hiden: 4\n", "f.yaml").root().AsMap();
  EXPECT_EQ(ErrorOf([&] { map.Int("hidden"); }),
            "f.yaml:1: key 'hidden' is missing ('hiden' is there instead)");
}

TEST(YamlReaderTest, OverrideReplacesAddsAndIndexes) {
  YamlDocument doc = YamlDocument::Parse("w:\n  rate: 2\n  mix: [{n: 1}, {n: 2}]\n", "f.yaml");
  YamlDocument before = doc;
  doc.Override("w.rate", "9");
  doc.Override("w.mix.1.n", "7");
  doc.Override("fresh.deep.key", "[1, 2]");
  YamlMap root = doc.root().AsMap();
  YamlMap w = root.Require("w").AsMap();
  EXPECT_EQ(w.Int("rate"), 9);
  EXPECT_EQ(w.Require("mix").AsSequence()[1].AsMap().Int("n"), 7);
  EXPECT_EQ(
      root.Require("fresh").AsMap().Require("deep").AsMap().Require("key").AsSequence().size(), 2u);
  // A copy made before keeps what it had.
  EXPECT_EQ(before.root().AsMap().Require("w").AsMap().Int("rate"), 2);
}

TEST(YamlReaderTest, OverrideErrorsSayOverride) {
  YamlDocument doc = YamlDocument::Parse("rate: 2\nlist: [1]\n", "f.yaml");
  EXPECT_THAT(ErrorOf([&] { doc.Override("rate.x", "1"); }), HasSubstr("override rate.x"));
  EXPECT_THAT(ErrorOf([&] { doc.Override("list.3", "1"); }), HasSubstr("no element"));
  EXPECT_THAT(ErrorOf([&] { doc.Override("a..b", "1"); }), HasSubstr("joined by dots"));
  EXPECT_THAT(ErrorOf([&] { doc.Override("", "1"); }), HasSubstr("joined by dots"));
  EXPECT_THAT(ErrorOf([&] { doc.Override("rate", "{a: 1, a: 2}"); }), HasSubstr("twice"));
  doc.Override("rate", "x");
  EXPECT_EQ(ErrorOf([&] { doc.root().AsMap().Int("rate"); }),
            "override: rate: got 'x' (want a whole number in decimal)");
}

TEST(YamlReaderTest, LoadTellsMissingFromUnreadable) {
  ErrorOf([] { YamlDocument::Load("no/such/file.yaml"); }, ErrorCode::kNotFound);
  EXPECT_THAT(ErrorOf([] { YamlDocument::Load("."); }), HasSubstr("not a regular file"));
  std::string path = testing::TempDir() + "/yaml_reader_test.yaml";
  std::ofstream(path) << "a: 1\n";
  EXPECT_EQ(YamlDocument::Load(path).root().AsMap().Int("a"), 1);
  std::filesystem::remove(path);
}

TEST(YamlReaderTest, MutatedTextIsReadOrRefusedNeverWorse) {
  const std::string text =
      "name: x\ndevices:\n  - {device: rtx, count: 2}\n  - name: 'q'\n    gap: 3.5\nlink: |\n  a\n"
      "send: [[1, 2], [3, 4]]\nsource: >-\n  folded\n  text\n\"k\": \"\\u00e9\"\n";
  const std::string alphabet = "{}[]:,-?&*!|>'\"%@`#\n \t~=<a0.\\\xff\xc3";
  std::mt19937 random(5);
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string mutant = text;
    for (uint32_t edits = 1 + random() % 4; edits > 0; --edits) {
      size_t at = random() % mutant.size();
      char c = alphabet[random() % alphabet.size()];
      if (random() % 3 == 0) {
        mutant.erase(at, 1 + random() % 5);
      } else if (random() % 2 == 0) {
        mutant.insert(at, 1, c);
      } else {
        mutant[at] = c;
      }
      if (mutant.empty()) mutant = "a";
    }
    try {
      YamlDocument::Parse(mutant, "f.yaml");
    } catch (const Error& error) {
      ++refused;
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_THAT(error.what(), HasSubstr("f.yaml"));
    }
  }
  EXPECT_GT(refused, 300);
  EXPECT_LT(refused, 3000);
}

TEST(YamlReaderTest, EmptyFileIsNotAMap) {
  EXPECT_THAT(ErrorOf([] { YamlDocument::Parse("", "f.yaml").root().AsMap(); }),
              HasSubstr("want a map"));
}

}  // namespace
}  // namespace tandem
