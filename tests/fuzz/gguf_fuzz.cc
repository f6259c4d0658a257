// libFuzzer target for the GGUF loader. Build with the preset `fuzz`, then
//   build/fuzz/bin/gguf_fuzz -max_len=65536 CORPUS_FOLDER
// Seeds: any small GGUF file, for instance `tandem models synthesize` of a tiny shape.
#include <cstddef>
#include <cstdint>

#include "tests/model/gguf_exercise.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tandem::LoadAndReadAll(std::as_bytes(std::span(data, size)));
  return 0;
}
