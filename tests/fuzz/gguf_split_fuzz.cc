// Fuzz target: any bytes as the two parts of a split GGUF model: eight bytes with the length of the
// first, then both.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tests/model/gguf_exercise.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  uint64_t first = 0;
  if (size < sizeof(first)) {
    return 0;
  }
  std::memcpy(&first, data, sizeof(first));
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(sizeof(first));
  first = std::min<uint64_t>(first, bytes.size());
  const std::array<tandem::GgufFile, 2> parts = {
      {{bytes.first(first), "first.gguf"}, {bytes.subspan(first), "second.gguf"}}};
  tandem::ReadWhatLoads([&] { return tandem::LoadGgufFiles(parts, nullptr); });
  return 0;
}
