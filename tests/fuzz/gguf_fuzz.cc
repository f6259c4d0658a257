// Fuzz target: any bytes as a GGUF file; when they load, everything the model promises is read.
#include <cstddef>
#include <cstdint>

#include "tests/model/gguf_exercise.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tandem::LoadAndReadAll(std::as_bytes(std::span(data, size)));
  return 0;
}
