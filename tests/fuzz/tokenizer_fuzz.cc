// libFuzzer entry: any bytes as a vocabulary and a text (tests/model/text/tokenizer_exercise.h).
// Errors are fine; crashes, hangs, runaway memory and ids outside the vocabulary are what it looks
// for.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "tests/model/text/tokenizer_exercise.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (!tandem::ExerciseTokenizer(bytes).problem.empty()) std::abort();
  return 0;
}
