// The plugin ABI's layout is frozen: plugins that people compiled must keep working. What may
// change is only the end of abi_layout.txt's structs, together with a new minor version.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "engine/plugin/abi.h"

#define LAYOUT_FUNCTION LayoutAsCpp
#include "tests/plugin/abi_layout.inc"

extern "C" size_t LayoutAsC(char* out, size_t size);

namespace tandem {
namespace {

template <typename Function>
std::string Text(Function function) {
  std::string text(1 << 16, '\0');
  text.resize(function(text.data(), text.size()));
  return text;
}

std::string Frozen() {
  std::ifstream file("tests/plugin/abi_layout.txt");
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(AbiLayoutTest, IsWhatWasFrozenInCAndCpp) {
  const std::string frozen = Frozen();
  ASSERT_FALSE(frozen.empty()) << "tests/plugin/abi_layout.txt is missing";
  EXPECT_EQ(Text(LayoutAsC), frozen);
  EXPECT_EQ(Text(LayoutAsCpp), frozen);
}

// A field that the dump forgot, or padding whose content nobody defines, would show as a gap.
TEST(AbiLayoutTest, HasNoGapsAndBeginsWithItsSize) {
  std::istringstream lines(Text(LayoutAsCpp));
  std::string line;
  std::string name;
  size_t size = 0;
  size_t end = 0;
  while (std::getline(lines, line) && !line.starts_with("TANDEM_")) {
    std::istringstream words(line);
    if (line.starts_with("struct ")) {
      EXPECT_EQ(end, size) << name;
      std::string keyword;
      words >> keyword >> name >> size;
      end = 0;
      continue;
    }
    std::string field;
    size_t offset = 0;
    size_t width = 0;
    words >> field >> offset >> width;
    EXPECT_EQ(offset, end) << name << "." << field;
    if (end == 0) {
      EXPECT_EQ(field, "struct_size") << name;
    }
    end = offset + width;
  }
  EXPECT_EQ(end, size) << name;
}

template <typename T>
void ExpectGrownFrom(uint32_t size10, const char* name) {
  EXPECT_LE(size10, sizeof(T)) << name;
  if (TANDEM_ABI_MINOR == 0) {
    EXPECT_EQ(size10, sizeof(T)) << name;
  }
}

TEST(AbiLayoutTest, AcceptsTheSizesOfTheFirstVersion) {
  ExpectGrownFrom<tandem_place>(kPlaceSize10, "tandem_place");
  ExpectGrownFrom<tandem_slot>(kSlotSize10, "tandem_slot");
  ExpectGrownFrom<tandem_program>(kProgramSize10, "tandem_program");
  ExpectGrownFrom<tandem_op>(kOpSize10, "tandem_op");
  ExpectGrownFrom<tandem_price>(kPriceSize10, "tandem_price");
  ExpectGrownFrom<tandem_knob>(kKnobSize10, "tandem_knob");
  ExpectGrownFrom<tandem_plugin>(kPluginSize10, "tandem_plugin");
}

}  // namespace
}  // namespace tandem
